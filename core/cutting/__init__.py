"""The speaker cut out of a video, from what detection has written about it."""
