"""What the data stage says of its work."""
