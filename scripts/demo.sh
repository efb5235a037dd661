#!/usr/bin/env bash
# The whole of Active Speakers in Context on a synthetic set: set up, generate, every stage, two tables: what context adds
# to an encoder trained here, and to a published one (left out where its weights cannot be downloaded).
#   bash scripts/demo.sh             about 9 minutes on 2 cores, after the installation
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
python=.venv/bin/python
$python scripts/make_synthetic_ava.py demo/synthetic --videos 24 --val-videos 8 --seconds 12 --seed 1 --jobs 2
data=(--videos demo/synthetic/videos --annotations demo/synthetic/annotations)
$python scripts/run_pipeline.py "${data[@]}" --out demo/run --crop-size 64 --ste-clips 10000 --asc-contexts 50000

find_weights='
from core.download.weights_catalogue import find_weights
from core.runtime.errors import exits_cleanly
exits_cleanly(lambda: print(*find_weights("light_asd", "ava")))()'
if ! $python -c "$find_weights"; then
    echo "what context adds to Light-ASD is left out: its weights could not be downloaded, see above"
    exit 0
fi
$python scripts/run_pipeline.py "${data[@]}" --out demo/light_asd --crop-size 112 --encoder-weights light_asd/ava \
    --fine-tune context --set ASC_optimization_params.epochs=8
