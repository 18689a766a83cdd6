"""What drops a page, or parts of it."""
