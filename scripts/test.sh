#!/usr/bin/env bash
# Set up if needed, then run the tests, on as many processes as there are cores; arguments go to pytest.
#   bash scripts/test.sh             bash scripts/test.sh -k crops
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
exec .venv/bin/python -m pytest -n auto --dist loadfile "$@"
