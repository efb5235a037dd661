"""Predictions beside annotations: matched, counted, told."""
