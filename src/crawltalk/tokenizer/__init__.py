"""Text to tokens and back: byte-level BPE, and the chat format. Training is in `crawltalk.tokenizer.train`."""

from crawltalk.tokenizer.chat import ChatFormat
from crawltalk.tokenizer.tokenizer import Tokenizer

__all__ = ["ChatFormat", "Tokenizer"]
