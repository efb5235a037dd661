"""Each kind of network over a split, and over crops as they arrive."""
