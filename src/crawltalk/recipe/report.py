"""The report: `[report]`."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Report:
    """One self-contained HTML file."""

    conversations: int = 24
    """Sample conversations to show."""
    vocabularies: tuple[str, ...] = ()
    """Tokenizers to compare with on the page of tokens: .tiktoken files, tokenizer.json files or folders."""
