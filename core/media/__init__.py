"""Videos and their audio: open, decode, cut, write."""
