"""Active Speakers in Context: who of the visible people is speaking, at every frame."""
