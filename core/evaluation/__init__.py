"""Predictions beside annotations: matched, counted, reported."""
