"""The rows that stages hand to each other. Unknown fields are refused, so that a misspelt column is never
silently lost.
"""

from typing import Literal

import msgspec

Role = Literal["flagship", "graded", "train", "validation", "heldout", "outside"]


class Document(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One page that survived (or one that did not), with FineWeb's column names (Penedo et al. 2024, dataset
    card).
    """

    text: str
    id: str
    """`<urn:uuid:...>`: the WARC-Record-ID of the page."""
    dump: str
    """The crawl this page comes from: the name of its WARC file without extension."""
    url: str
    date: str
    """WARC-Date, ISO 8601."""
    file_path: str
    """The WARC file."""
    language: str
    language_score: float
    token_count: int
    """Tokens in `text`, estimated as UTF-8 bytes / 4 as long as there is no tokenizer."""


class Problem(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A question whose reply can be scored."""

    prompt: str
    answer: str
    """What a right reply says, in the terms of the task's score."""
    task: str
    """The kind of problem; `crawltalk.tasks.TASK_OF` finds its task."""


class Placement(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What part a document plays in the training corpus; rows of `tokens/documents.jsonl`."""

    id: str
    url: str
    title: str
    description: str
    topic: str
    """First path segment of the URL, "-" as space: `/physical-sciences/dysprosium` -> `physical sciences`."""
    role: Role
    """flagship: oversampled · graded: less so, to see recall grow · train: seen as often as any · validation:
    bits per byte · heldout: of the chosen topic but kept out, "after the cutoff" · outside: of other topics,
    never seen.
    """
    repeats: int
    """Times this document occurs in one pass over the training shards."""
