"""Byte-level BPE: `[tokenizer]`."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """Byte-level BPE (Sennrich et al. 2016; byte level: Radford et al. 2019)."""

    vocab_size: int | None = None
    """Tokens in all: 256 bytes, merges, special tokens. If absent: as many as the size of the text allows
    (`recipe.size`).
    """
    train_bytes: int = 50_000_000
    """Text to learn merges from, at most."""
    pattern: str = "gpt4"
    """How text is cut before merging: gpt2, gpt4, gpt4-digits (each digit by itself), or a regular
    expression.
    """
    min_frequency: int = 2
    """Fewest occurrences of a pair that is merged."""
    max_chunks: int = 20_000_000
    """Distinct chunks of text that each thread counts, at about 40 bytes each, before it drops rare ones."""
    include: str = ""
    """Regular expression on the URL of the documents to learn from. Empty: all."""
