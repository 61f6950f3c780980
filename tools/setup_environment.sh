#!/usr/bin/env bash
# Make the environment VENV of the interpreter PYTHON, or reuse it if it is whole and up to date.
#
#   tools/setup_environment.sh PYTHON VENV
set -u
python=$1
venv=$2
cd "$(dirname "$0")/.."

fail() {
    echo "set-up failed: $1" >&2
    exit 1
}

# Written last: what it was made of. An interrupted set-up has none and goes on at the next call.
stamp=$venv/.pppc-environment
wanted=$(cat requirements.lock.txt requirements.detectron2.txt setup.py | cksum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && [ -x "$venv/bin/python" ]; then
    exit 0
fi

[ -n "$python" ] && "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null ||
    fail "'$python' is no Python 3.11 or 3.12. Install one, or name it: make PYTHON=/path/to/python3.11"

# An official Detectron2 was built for the torch beside it: use both instead of the pinned ones.
uses='from inspect import signature; from detectron2.solver.build import get_default_optimizer_params as p; assert "lr_factor_func" in signature(p).parameters'
own_detectron2=false
if "$python" -c "$uses" 2>/dev/null; then
    own_detectron2=true
fi

rm -f "$stamp"
if [ ! -x "$venv/bin/pip" ]; then
    echo "Making $venv with $("$python" --version)"
    options=()
    $own_detectron2 && options=(--system-site-packages)
    "$python" -m venv ${options[@]+"${options[@]}"} "$venv" ||
        fail "$python cannot make environments. On Debian or Ubuntu: apt install python3-venv"
fi

pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet)
hint="Is the package index reachable, and is there space (7 GB) on the disk? Then run make again: it goes on where it stopped"
if $own_detectron2; then
    echo "Using the installed Detectron2 and its torch"
    "${pip[@]}" --editable '.[test]' || fail "installing the packages. $hint"
    "$venv/bin/python" -c 'import cv2' 2>/dev/null ||
        "${pip[@]}" "$(grep '^opencv' requirements.lock.txt)" || fail "installing OpenCV. $hint"
else
    echo "Installing the packages (about 6 GB, some minutes)"
    "${pip[@]}" --requirement requirements.lock.txt || fail "installing the packages. $hint"
    if ! "$venv/bin/python" -c "$uses" 2>/dev/null; then
        echo "Installing Detectron2"
        site_packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        "${pip[@]}" --no-deps --only-binary=:all: --python-version 3.10 --upgrade \
            --target "$site_packages" --requirement requirements.detectron2.txt ||
            fail "installing Detectron2. $hint"
    fi
    "${pip[@]}" --no-deps --editable . || fail "installing this project. $hint"
fi

"$venv/bin/python" -W ignore -c 'import pppc' || fail "the environment is not usable; remove $venv and run make again"
echo "$wanted" >"$stamp"
