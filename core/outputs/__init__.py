"""What detection writes for people and programs."""
