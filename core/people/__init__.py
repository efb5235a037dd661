"""Which face tracks are of one person: faces compared across shots and gaps."""
