"""Preparation steps, one a file: `python data/NAME.py` and `python -m data.NAME` do the same."""
