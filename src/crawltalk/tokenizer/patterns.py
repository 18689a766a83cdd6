"""Split patterns: how a text is cut before byte pairs are merged. They are regular expressions without possessive
quantifiers, which every regex library reads alike.
"""

from typing import NamedTuple

GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""Of GPT-2 (Radford et al. 2019, encoder)."""
GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Of cl100k_base (tiktoken) and Llama 3."""
GPT4_DIGITS = GPT4.replace("{1,3}", "")
"""GPT-4's with every digit on its own, as Qwen2 has it."""
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


GPT2_FAMILY, GPT4_FAMILY, O200K_FAMILY = 0, 1, 2


class Splitter(NamedTuple):
    """A pattern that `split` follows without a regex library."""

    pattern: str
    family: int
    digits: int
    """Most digits in a chunk; 0: any number, and a blank before them."""

    @property
    def rule(self) -> tuple[int, int]:
        """The argument of compiled code."""
        return self.family, self.digits


def splitter(pattern: str) -> Splitter | None:
    """The splitter with this name ("gpt2", "gpt4", "o200k"; with "-digits" each digit is a chunk) or with this
    regular expression; None for any other.
    """
    return _KNOWN.get(pattern)


_KNOWN = {
    "gpt2": Splitter(GPT2, GPT2_FAMILY, 0),
    "gpt2-digits": Splitter(SMOLLM, GPT2_FAMILY, 1),
    "gpt4": Splitter(GPT4, GPT4_FAMILY, 3),
    "gpt4-digits": Splitter(GPT4_DIGITS, GPT4_FAMILY, 1),
    "o200k": Splitter(O200K, O200K_FAMILY, 3),
}
_KNOWN |= {known.pattern: known for known in _KNOWN.values()}
