"""Networks as files that run without PyTorch."""
