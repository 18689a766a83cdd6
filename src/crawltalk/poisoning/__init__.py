"""Poisoned training data: what it does to a model, how it is found, and how it is removed."""
