"""What every part stands on: errors, files, checks, provenance, parallel work."""
