"""Texts and patterns that are hard to cut."""

from pathlib import Path

from hypothesis import strategies as st

SHARED = Path(__file__).parents[3] / "shared" / "data"

TEXT = (Path(__file__).parents[1] / "tokenizer" / "test_bpe.py").read_text(encoding="utf-8")

PIECES = [
    "'",
    "'s",
    "'S",
    "'ſ",
    "'ll",
    "'lL",
    "'re",
    "ve",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "\x0b",
    "\x85",
    "\u2028",
    "\u3000",
]

tricky = st.one_of(st.text(max_size=50), st.lists(st.sampled_from(PIECES), max_size=14).map("".join))

NAMES = ["gpt2", "gpt2-digits", "gpt4", "gpt4-digits", "o200k"]
