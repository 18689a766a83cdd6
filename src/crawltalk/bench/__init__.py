"""Benchmarks against peers: one file each. `verbs/bench.py` is the door."""
