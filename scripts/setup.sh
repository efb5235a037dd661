#!/usr/bin/env bash
# Make .venv with the pinned dependencies; nothing to do where it is up to date.
#   bash scripts/setup.sh            PYTHON=python3.12 bash scripts/setup.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stamp=.venv/.installed
if [ -f "$stamp" ] && [ "$stamp" -nt requirements.txt ] && [ "$stamp" -nt pyproject.toml ]; then
    exit 0
fi

python=${PYTHON:-}
if [ -z "$python" ]; then
    for candidate in python3.12 python3.13 python3.11 python3; do
        if command -v "$candidate" > /dev/null &&
            "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2> /dev/null; then
            python=$candidate
            break
        fi
    done
fi
if [ -z "$python" ]; then
    echo "error: no Python 3.11, 3.12 or 3.13 found; install one, or name it: PYTHON=/path/to/python3 bash $0" >&2
    exit 2
fi

echo "setting up .venv with $("$python" --version); the download is about 3 GB on Linux, 0.3 GB on macOS"
"$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,cluster,cloud,export]'
touch "$stamp"
