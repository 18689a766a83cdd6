"""The report: `[report]`."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Report:
    """One self-contained HTML file."""

    conversations: int = 24
    """Sample conversations to show."""
    vocabularies: tuple[str, ...] = ()
    """Other tokenizers for the page of tokens: .tiktoken files, tokenizer.json files or folders."""
    lab: str | None = None
    """The folder of `crawltalk lab`'s results: its claims stand in the chapters that they are about."""
