"""Text to tokens and back: byte-level BPE.

from crawltalk.tokenizer import Tokenizer, train
"""

from typing import Any

from crawltalk.tokenizer.tokenizer import Tokenizer

__all__ = ["Tokenizer", "train"]


def __getattr__(name: str) -> Any:
    if name == "train":  # loads a compiler, which encoding does not need
        from crawltalk.tokenizer.bpe import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
