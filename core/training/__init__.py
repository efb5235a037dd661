"""What a training is made of, beside the loop."""
