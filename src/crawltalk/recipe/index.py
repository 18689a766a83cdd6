"""Suffix arrays: `[index]`."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Index:
    """Suffix arrays over the training shards, to trace a text back to its pages. Nothing to choose."""
