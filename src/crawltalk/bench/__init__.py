"""Benchmarks against peers, one file each. `verbs/bench.py` is their verb."""
