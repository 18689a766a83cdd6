"""Split patterns: where a text may be cut before byte pairs are merged. Regular expressions, in the form that every engine reads
alike (without possessive quantifiers).
"""

from typing import NamedTuple

GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""Of GPT-2 (Radford et al. 2019, encoder)."""
GPT4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""Of cl100k_base (tiktoken) and Llama 3."""
O200K = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ]
)
"""Of o200k_base (tiktoken)."""
SMOLLM = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
"""GPT-2's with every digit on its own."""


class Splitter(NamedTuple):
    """A pattern that `split` follows without a regex engine."""

    pattern: str
    digits: int
    """Most digits in a chunk of GPT-4's pattern; 0 stands for GPT-2's."""


def splitter(pattern: str) -> Splitter | None:
    """By name ("gpt2", "gpt4", or "gpt4-digits", where each digit stands by itself) or by the expression; None for any other."""
    return _KNOWN.get(pattern)


_KNOWN = {
    "gpt2": Splitter(GPT2, 0),
    "gpt4": Splitter(GPT4, 3),
    "gpt4-digits": Splitter(GPT4.replace("{1,3}", ""), 1),
}
_KNOWN |= {known.pattern: known for known in _KNOWN.values()}
