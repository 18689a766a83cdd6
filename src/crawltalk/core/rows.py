"""The rows of JSONL, JSON and Parquet files, compressed or not, as dicts."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.formats import READ_ERRORS, detect_format, open_plain
from crawltalk.core.printable import printable

Fields = Mapping[str, Any]


def read_rows(path: Path, of: str) -> Iterator[tuple[int, Fields | str]]:
    """Number and fields of each row; a text that says what is wrong with it instead of fields. The first number is 1:
    the line of a JSONL file, the position in a list or a table. `of`: what the file should have, for messages.

    Raises MissingInput, and BadInput for a file that is none of these or is damaged.
    """
    if not path.is_file():
        raise MissingInput(f"{path} does not exist; give a file of {of}: JSONL, JSON or Parquet")
    found = detect_format(path)
    try:
        if found == "parquet":
            yield from _of_parquet(path)
        elif found == "json":
            yield from _of_json(path)
        else:
            raise BadInput(f"{path} is no JSONL, JSON or Parquet file, by its name and its first bytes")
    except READ_ERRORS as error:
        raise BadInput(f"{path} is damaged: {error}") from None


def _of_json(path: Path) -> Iterator[tuple[int, Fields | str]]:
    """One object a line, or one list of objects over any number of lines."""
    with open_plain(path) as file:
        first = next(
            (letter for line in file for letter in line.decode("utf-8", "replace").strip("\ufeff \t\r\n")), ""
        )
    with open_plain(path) as file:
        if first == "[":
            try:
                given = msgspec.json.decode(file.read().removeprefix(b"\xef\xbb\xbf"))
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
                raise BadInput(f"{path} is damaged: {error}") from None
            yield from ((number, _fields(row)) for number, row in enumerate(given, 1))
            return
        for number, line in enumerate(file, 1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if text.strip():
                try:
                    yield number, _fields(msgspec.json.decode(text))
                except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
                    yield number, f"no JSON: {error}"


def _of_parquet(path: Path) -> Iterator[tuple[int, Fields | str]]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(1000):
                for row in batch.to_pylist():
                    number += 1
                    yield number, without_none(row)
    except pyarrow.ArrowException as error:
        raise BadInput(f"{path} is damaged: {error}") from None


def _fields(row: Any) -> Fields | str:
    return row if isinstance(row, dict) else f"a row is an object, not {printable(json.dumps(row), 40)}"


def without_none(value: Any) -> Any:
    """A row of a table has all columns, and all fields that any row has; those without a value are not set."""
    match value:
        case dict():
            return {key: without_none(item) for key, item in value.items() if item is not None}
        case list():
            return [without_none(item) for item in value]
    return value
