"""From WARC to clean documents: `data` is the stage, `extract` the main text of one page."""

from typing import TYPE_CHECKING

__all__ = ["extract"]

if TYPE_CHECKING:
    from crawltalk.data.extraction import extract as extract


def __getattr__(name: str) -> object:
    """`from crawltalk.data import extract`, without importing the parser for `import crawltalk.data.urls`."""
    if name == "extract":
        from importlib import import_module

        return import_module("crawltalk.data.extraction").extract
    raise AttributeError(f"module 'crawltalk.data' has no attribute {name!r}")
