#!/usr/bin/env bash
# Make the environment VENV, or reuse it if it is whole and up to date.
#
#   tools/setup_environment.sh PYTHON VENV
#
# PYTHON may be empty: the first Python 3.11 or 3.12 on the path. Every package is installed at its
# pinned version, from the package index alone; but a usable Detectron2 of PYTHON's is used as is.
set -u -o pipefail
python=$1
venv=$2
cd "$(dirname "$0")/.."

fail() {
    echo "set-up failed: $1" >&2
    exit 1
}

suitable_version() { # of an interpreter; nothing if it does not run or is another Python
    "$1" -c 'import sys
if sys.version_info[:2] in [(3, 11), (3, 12)]: print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

present=$(suitable_version "$venv/bin/python")
if [ -n "$python" ]; then
    wanted=$(suitable_version "$python")
    [ -n "$wanted" ] ||
        fail "'$python' is no working Python 3.11 or 3.12; \
name another: make PYTHON=/path/to/python3.11"
    [ "${present:-$wanted}" = "$wanted" ] ||
        fail "$venv has Python $present and '$python' is $wanted: \
run make clean first, or leave PYTHON out"
fi

# Written last, so that an interrupted set-up has none: what the environment is made of, and where.
stamp=$venv/complete
ingredients="$PWD $(cat requirements.*.txt setup.py | cksum)"
if [ -n "$present" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$ingredients" ]; then
    exit 0
fi
rm -f "$stamp"

if [ -z "$python" ]; then
    for python in python3 python3.12 python3.11 "$venv/bin/python"; do
        wanted=$(suitable_version "$python")
        [ -n "$wanted" ] && [ "${present:-$wanted}" = "$wanted" ] && break
    done
    [ -n "$wanted" ] ||
        fail "found no Python 3.11 or 3.12; install one or name it: make PYTHON=/path/to/python3.11"
fi
if [ -z "$present" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    echo "Making $venv with Python $wanted"
    "$python" -m venv --clear "$venv" >/dev/null 2>&1 ||
        fail "'$python -m venv $venv' failed: install its venv module (Debian, Ubuntu: apt install \
python$wanted-venv), or free space on the disk, or name another: make PYTHON=/path/to/python3.11"
fi

log=$venv/setup.log
install() { # WHAT PIP_ARGUMENTS...; shows the large downloads, everything else goes to the log
    local what=$1 reason
    shift
    echo "Installing $what"
    "$venv/bin/python" -m pip --disable-pip-version-check install "$@" 2>&1 |
        tee "$log" | sed -nu 's/^ *\(Downloading .*([0-9.]* [MG]B)\).*/  \1/p' && return
    if grep -qi "no space left" "$log"; then
        reason="the disk is full; free about 8 GB"
    elif grep -qE "ConnectionError|ConnectTimeout|ReadTimeout|Retrying \(" "$log"; then
        reason="the package index cannot be reached; check the network"
    else
        reason="$(grep -m 1 ERROR "$log" || tail -n 1 "$log") (all of it: $log); fix that"
    fi
    fail "installing $what: $reason and run make again, which goes on where it stopped"
}

# pip writes INSTALLER after a package's files: a package without it was cut off in the middle.
site_packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
for package in "$site_packages"/*.dist-info; do
    [ -f "$package/INSTALLER" ] || rm -rf "$package"
done

# pip and setuptools first: then packages without a wheel are built by these, not by the newest.
install "pip and setuptools" -r <(grep -E '^(pip|setuptools)==' requirements.lock.txt)
install "the packages (about 6 GB, some minutes)" --no-build-isolation -r requirements.lock.txt

has_detectron2() {
    "$1" -c 'import runpy
runpy.run_path("projects/PPPC/pppc/requirements.py")["check_detectron2"]()' >/dev/null 2>&1
}
if ! has_detectron2 "$venv/bin/python"; then
    if has_detectron2 "$python"; then
        echo "Using the Detectron2 of $python"
        # Not --system-site-packages, which misses PYTHON's packages where PYTHON is an environment.
        "$python" -c 'import site
folders = site.getsitepackages() + [site.getusersitepackages()] * bool(site.ENABLE_USER_SITE)
print("import site", *(f"site.addsitedir({folder!r})" for folder in folders), sep="; ")' \
            >"$site_packages/detectron2_of_base_python.pth"
    else
        # Moved into place from the same disk, so that it is there as a whole or not at all.
        TMPDIR=$PWD/$venv install "Detectron2" --no-deps --only-binary=:all: --python-version 3.10 \
            --upgrade --target "$site_packages" -r requirements.detectron2.txt
    fi
fi
install "this project" --no-deps --no-build-isolation -e .

"$venv/bin/python" -W ignore -c 'import pppc' 2>"$log" ||
    fail "the environment does not work: $(tail -n 1 "$log"); run make clean and try again"
echo "$ingredients" >"$stamp"
