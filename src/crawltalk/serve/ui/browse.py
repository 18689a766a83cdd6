"""The pages of a run, kept and dropped, a few at a time: one row group is in memory, whatever the corpus.

A place in a run's Parquet files is `file.group.row`, three numbers: what a list goes on from, and what names
a page.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from pyarrow.parquet import ParquetFile

from crawltalk.core.documents import titled
from crawltalk.core.errors import BadInput, MissingInput

Kind = Literal["documents", "removed"]
Place = tuple[int, int, int]
ROWS = 20
"""Of one answer."""
GROUPS = 300
"""Row groups that one answer looks through; the next answer goes on behind them."""
EXCERPT, TEXT = 240, 200_000
"""Characters of a page in a list, and of a page that is read."""


class Listed(msgspec.Struct):
    """Some rows, and the place to go on from: None at the end."""

    rows: list[dict[str, Any]]
    next: str | None


def listed(folder: Path, kind: Kind, start: str, wanted: Mapping[str, str]) -> Listed:
    """The rows from `start` on whose columns have the `wanted` values: each with its place, its title and an
    excerpt.
    """
    rows: list[dict[str, Any]] = []
    first = _parse(start)
    for looked, (number, group, file) in enumerate(_groups(folder, kind, first)):
        if looked == GROUPS:
            return Listed(rows, f"{number}.{group}.0")
        matches = [row for row in _matches(file, group, wanted) if (number, group, row) >= first]
        if not matches:
            continue
        table = file.read_row_group(group)
        for row in matches:
            place = f"{number}.{group}.{row}"
            if len(rows) == ROWS:
                return Listed(rows, place)
            title, text = titled(table.slice(row, 1).to_pylist()[0])
            rows.append(text | {"place": place, "title": title, "text": text["text"][:EXCERPT]})
    return Listed(rows, None)


def page(folder: Path, kind: Kind, place: str) -> dict[str, Any]:
    """One page with its text, up to `TEXT` characters. Raises MissingInput if there is none at this place."""
    for number, group, file in _groups(folder, kind, wanted := _parse(place)):
        if (number, group) == wanted[:2] and wanted[2] < file.metadata.row_group(group).num_rows:
            title, row = titled(file.read_row_group(group).slice(wanted[2], 1).to_pylist()[0])
            return row | {
                "place": place,
                "title": title,
                "text": row["text"][:TEXT],
                "characters": len(row["text"]),
            }
        break
    raise MissingInput(f"there is no page at {place}; the data stage was made anew: reload the list")


def _parse(place: str) -> Place:
    parts = (place or "0.0.0").split(".")
    if len(parts) != 3 or not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise BadInput(f"{place[:40]!r} is no place in a list; begin again without it")
    return int(parts[0]), int(parts[1]), int(parts[2])


def _groups(folder: Path, kind: Kind, first: Place) -> Iterator[tuple[int, int, ParquetFile]]:
    """(number of the file, number of the row group, the file) from a place on."""
    for number, path in enumerate(sorted(folder.glob(f"{kind}-*.parquet"))):
        if number < first[0]:
            continue
        with ParquetFile(path) as file:
            for group in range(first[1] if number == first[0] else 0, file.num_row_groups):
                yield number, group, file


def _matches(file: ParquetFile, group: int, wanted: Mapping[str, str]) -> list[int]:
    """The rows of a group whose columns have these values."""
    if not wanted:
        return list(range(file.metadata.row_group(group).num_rows))
    rows = file.read_row_group(group, columns=list(wanted)).to_pylist()
    return [number for number, row in enumerate(rows) if row == wanted]
