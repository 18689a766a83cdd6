"""Poisoned training data: what an attacker puts into it, what that does to a model, and how it is found."""
