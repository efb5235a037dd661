"""What a training uses beside its loop: losses, run folders, learning curves."""
