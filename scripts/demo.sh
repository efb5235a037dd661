#!/usr/bin/env bash
# The whole of Active Speakers in Context on a synthetic set: set up, generate, every stage, one table.
#   bash scripts/demo.sh             under 10 minutes on 2 cores, after the installation
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
.venv/bin/python scripts/make_synthetic_ava.py demo/synthetic --videos 24 --val-videos 8 --seconds 12 --seed 1 --jobs 2
.venv/bin/python scripts/run_pipeline.py --videos demo/synthetic/videos --annotations demo/synthetic/annotations \
    --out demo/run --crop-size 64 --ste-clips 10000 --asc-contexts 50000
