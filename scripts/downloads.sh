#!/usr/bin/env bash
# Fetch the augmented csvs (the utility files) of the authors of the method:
#
#     bash scripts/downloads.sh ava/utility
#
# The first argument is the folder to write to; further ones go to data/download_ava.py (--split, --jobs, --mirror).
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [ "$#" -eq 0 ]; then
    echo "usage: bash scripts/downloads.sh DESTINATION [--split train|val|both] [--jobs N] [--mirror URL]" >&2
    exit 2
fi
python="$root/.venv/bin/python"
[ -x "$python" ] || python=python3
exec "$python" "$root/data/download_ava.py" utility "$@"
