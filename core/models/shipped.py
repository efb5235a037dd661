"""The context networks that come with this repository, one for each published encoder; `scripts/train_context.py` made
them."""

from pathlib import Path

FOLDER = Path(__file__).parent / "contexts"  # of <encoder>.pth, and <encoder>.json: how it was made
