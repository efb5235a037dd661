"""Synthetic scenes of talking heads, drawn and voiced."""
