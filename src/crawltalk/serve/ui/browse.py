"""Lists of a run's crawled pages, kept and dropped, a few at a time: only one row group is in memory, however large
the corpus.

A page's position in the run's Parquet files is `file.group.row`, three numbers. It identifies the page, and a
list continues from one. In the JSON it is called `place`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from pyarrow.parquet import ParquetFile

from crawltalk.core.documents import titled
from crawltalk.core.errors import BadInput, MissingInput

Kind = Literal["documents", "removed"]
Position = tuple[int, int, int]
MAX_ROWS = 20
"""Pages in one response."""
MAX_GROUPS = 300
"""Row groups that one request searches; the next request continues behind them."""
EXCERPT_CHARACTERS = 240
TEXT_CHARACTERS = 200_000
"""Characters of a page that are sent."""


class PageList(msgspec.Struct):
    rows: list[dict[str, Any]]
    next: str | None
    """The position to continue from; None at the end."""


def list_pages(folder: str | Path, kind: Kind, start: str, filters: Mapping[str, str]) -> PageList:
    """The pages from position `start` on (empty: from the first) whose columns have the values of `filters`,
    each with its position, its title and an excerpt. Raises BadInput for a `start` that is no position.
    """
    rows: list[dict[str, Any]] = []
    first = _parse(start)
    for searched, (number, group, file) in enumerate(_groups(folder, kind, first)):
        if searched == MAX_GROUPS:
            return PageList(rows, f"{number}.{group}.0")
        matches = [row for row in _matches(file, group, filters) if (number, group, row) >= first]
        if not matches:
            continue
        table = file.read_row_group(group)
        for row in matches:
            position = f"{number}.{group}.{row}"
            if len(rows) == MAX_ROWS:
                return PageList(rows, position)
            title, page = titled(table.slice(row, 1).to_pylist()[0])
            rows.append(page | {"place": position, "title": title, "text": page["text"][:EXCERPT_CHARACTERS]})
    return PageList(rows, None)


def read_page(folder: str | Path, kind: Kind, position: str) -> dict[str, Any]:
    """One page with its text, up to TEXT_CHARACTERS. Raises BadInput for what is no position, and
    MissingInput if no page has it.
    """
    target = _parse(position)
    for number, group, file in _groups(folder, kind, target):
        if (number, group) == target[:2] and target[2] < file.metadata.row_group(group).num_rows:
            title, page = titled(file.read_row_group(group).slice(target[2], 1).to_pylist()[0])
            return page | {
                "place": position,
                "title": title,
                "text": page["text"][:TEXT_CHARACTERS],
                "characters": len(page["text"]),
            }
        break
    raise MissingInput(f"there is no page at {position}; the data stage was made anew: reload the list")


def _parse(position: str) -> Position:
    parts = (position or "0.0.0").split(".")
    if len(parts) != 3 or not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise BadInput(
            f"{position[:40]!r} is not a position in a list; leave it out to begin at the first page"
        )
    return int(parts[0]), int(parts[1]), int(parts[2])


def _groups(folder: str | Path, kind: Kind, first: Position) -> Iterator[tuple[int, int, ParquetFile]]:
    """(number of the file, number of the row group, the file) from a position on."""
    for number, path in enumerate(sorted(Path(folder).glob(f"{kind}-*.parquet"))):
        if number < first[0]:
            continue
        with ParquetFile(path) as file:
            for group in range(first[1] if number == first[0] else 0, file.num_row_groups):
                yield number, group, file


def _matches(file: ParquetFile, group: int, filters: Mapping[str, str]) -> list[int]:
    """The rows of a group whose columns have these values."""
    if not filters:
        return list(range(file.metadata.row_group(group).num_rows))
    rows = file.read_row_group(group, columns=list(filters)).to_pylist()
    return [number for number, row in enumerate(rows) if row == filters]
