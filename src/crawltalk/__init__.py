"""crawltalk: first it crawls, then it talks. From a raw web crawl to a chat assistant, with one lineage."""

from typing import TYPE_CHECKING

__version__ = "0.2.0"
__all__ = ["Run", "__version__"]

if TYPE_CHECKING:
    from crawltalk.api import Run


def __getattr__(name: str) -> object:
    """`from crawltalk import Run`, without paying for it in `crawltalk --help`."""
    if name == "Run":
        from crawltalk.api import Run

        return Run
    raise AttributeError(f"module 'crawltalk' has no attribute {name!r}")
