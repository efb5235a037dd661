"""From stored data to what a network takes."""
