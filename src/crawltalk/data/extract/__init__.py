"""The main text of a page."""

from crawltalk.data.extract.main_text import extract

__all__ = ["extract"]
