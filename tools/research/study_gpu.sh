#!/usr/bin/env bash
# The main rows of the study for ten times as long, in ten minutes of one large GPU; JSON alone comes back.
#     tools/research/study_gpu.sh FOLDER [STUDY [JOBS]]   (in an environment that has a CUDA build of PyTorch)
# FOLDER gets a JSON file of each run that is finished by then. Copied to docs/study/long, they count as made there, and
# the next call, or study.py, runs what is missing. DEVICE=cpu and MINUTES=60, say, are for other machines.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:?give a folder for the results} study=${2:-docs/study/long.yaml} jobs=${3:-14}
mkdir -p "$folder"
export DETECTRON2_DATASETS=output/study_gpu/datasets
python tools/make_demo_data.py "$DETECTRON2_DATASETS"
python tools/convert_datasets/gta.py "$DETECTRON2_DATASETS/gta"
python tools/convert_datasets/cityscapes.py "$DETECTRON2_DATASETS/cityscapes"
status=0
timeout --kill-after 10 "${MINUTES:-9}m" python tools/research/study.py "$study" \
    --output output/study_gpu/runs --device "${DEVICE:-cuda}" --jobs "$jobs" || status=$?
cp -v "${study%.yaml}"/*.json "$folder"
[ "$status" = 0 ] || [ "$status" = 124 ] # stopped by the clock is no error
python tools/research/study.py "$study" --report
