#!/usr/bin/env bash
# Set up if needed, then run the tests, on a process more than there are cores, as some wait for browsers and clusters;
# arguments go to pytest.
#   bash scripts/test.sh             bash scripts/test.sh -k crops
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
processes=$(($(getconf _NPROCESSORS_ONLN) + 1))
# File after file by name: by default those with few tests come last, among them the slowest.
exec .venv/bin/python -m pytest -n "$processes" --dist loadfile --no-loadscope-reorder "$@"
