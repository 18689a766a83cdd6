"""Rows in files of one JSON object a line."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.files import write_atomically

Row = TypeVar("Row")


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> int:
    """Write one JSON object a line (Structs, dataclasses or dicts), atomically. Returns the number of rows."""
    lines = [msgspec.json.encode(row) for row in rows]
    write_atomically(path, b"".join(line + b"\n" for line in lines))
    return len(lines)


def read_jsonl(path: str | Path, row_type: type[Row]) -> Iterator[Row]:
    """Read rows one by one. Raises MissingInput if there is no such file, BadInput with the line number for a
    bad row.
    """
    if not Path(path).exists():
        raise MissingInput(f"{path} does not exist")
    decoder = msgspec.json.Decoder(row_type)
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield decoder.decode(line)
            except msgspec.MsgspecError as error:
                raise BadInput(f"{path}, line {number}: {error}") from None
