"""Videos and their sound: open, decode, cut, write."""
