"""Attacks: one file an idea."""
