#!/usr/bin/env bash
# What only a GPU can tell, within ten minutes of one: tests/test_cuda.py, then a step's time, memory and profile.
#     tools/research/gpu_checks.sh FOLDER        (in an environment that has a CUDA build of PyTorch)
# FOLDER gets a JSON file a setting with seconds by stage, a text file with GB that PyTorch reserved, and profiles.
# What takes longest comes last, so that a limit of time cuts it off.
set -u
cd "$(dirname "$0")/../.."
folder=${1:?give a folder for the results}
mkdir -p "$folder"
python -m pytest -q -rs tests/test_cuda.py 2>&1 | tee "$folder/tests.txt"

benchmark() {  # NAME CONFIGURATION KEY VALUE ...
    local name=$1 file=$2
    shift 2
    python tools/research/benchmark.py training --rounds 3 --config-file "$file" --json "$folder/$name.json" "$@"
    python tools/research/benchmark.py training --need "peak memory, process, GB" --config-file "$file" "$@" \
        > "$folder/$name.gb.txt"
}

for network in r101 mit_b5; do
    published=configs/gta_to_cityscapes_pppc_$network.yaml
    recommended=$folder/$network.yaml
    printf '_BASE_: [%s, %s]\n' "$PWD/$published" "$PWD/configs/methods/recommended.yaml" > "$recommended"
    for half in True False; do
        benchmark "${network}_recommended_half_$half" "$recommended" SOLVER.AMP.ENABLED $half
        benchmark "${network}_published_half_$half" "$published" SOLVER.AMP.ENABLED $half
    done
    python tools/research/benchmark.py training --need profile --config-file "$published" SOLVER.AMP.ENABLED True \
        > "$folder/$network.profile.txt"
    benchmark "${network}_compiled" "$published" SOLVER.AMP.ENABLED True MODEL.COMPILE default
done
