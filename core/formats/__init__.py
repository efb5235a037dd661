"""The files in which the steps meet, one module a format."""
