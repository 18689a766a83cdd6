"""The verb that shows any artifact."""

import json as jsons
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from crawltalk.core.errors import BadInput, MissingInput, UserError
from crawltalk.core.printable import printable
from crawltalk.run.console import console, print_table, size
from crawltalk.run.folder import find_run
from crawltalk.verbs.corpus import show_page
from crawltalk.verbs.masks import show_mask

_HEAD = 20_000  # bytes of a text


def show(
    path: Path,
    file: Path | None = None,
    *,
    rows: int = 3,
    find: str | None = None,
    page: str | None = None,
    model: str = "runs/small",
    json: bool = False,
) -> None:
    """Any artifact, readable: Parquet, JSONL, JSON, TOML, token shards, safetensors, WARC, text, or a folder.

    `show mask FILE`: what a fine-tuning would learn of a file of conversations, and why it refuses rows.

    Parameters
    ----------
    path
        A file or a folder, or `mask`.
    file
        Of `mask`: the conversations.
    find
        Only rows that contain this.
    page
        Of a data folder: one page by its URL or id, and every filter's decision on it.
    model
        Of `mask`: whose tokens, chat format and context.
    json
        Of `mask`: JSON lines, all rows.
    """
    if file is not None:
        if str(path) != "mask":
            raise BadInput(f"show takes one path, or: crawltalk show mask {file}")
        show_mask(file, model, rows, find, json)
        return
    path = find_run(path).path if not path.exists() else path
    if not path.exists():
        raise MissingInput(f"{path} is not there; list the files of a run with: crawltalk show runs/small")
    if page is not None:
        show_page(path, page)
    elif path.is_dir():
        _show_folder(path)
    else:
        with _one_line_if_damaged(path):
            _show_file(path, rows, find)


_DAMAGE = (OSError, ValueError, LookupError, TypeError, RuntimeError, EOFError, MemoryError, zlib.error)


@contextmanager
def _one_line_if_damaged(path: Path) -> Iterator[None]:
    """Any error of the library that reads a file becomes one line. Raises BadInput."""
    try:
        yield
    except (UserError, BrokenPipeError):
        raise
    except (*_DAMAGE, msgspec.MsgspecError) as error:
        reason = printable(str(error).partition("\n")[0], 200) or type(error).__name__
        raise BadInput(f"{path} is damaged, or not what its name says: {reason}") from None


def _show_file(path: Path, rows: int, find: str | None) -> None:
    if path.suffix == ".parquet":
        from pyarrow import parquet

        table = parquet.read_table(path)
        console.print(f"{path}: {table.num_rows:,} rows; {', '.join(table.column_names)}", markup=False)
        _show_rows(table.to_pylist(), rows, find)
    elif path.suffix == ".jsonl":
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        console.print(f"{path}: {len(lines):,} rows", markup=False)
        _show_rows([_json_row(path, number, line) for number, line in enumerate(lines, 1)], rows, find)
    elif path.suffix == ".json":
        console.print(msgspec.json.format(path.read_bytes()).decode()[:20_000], markup=False, soft_wrap=True)
    elif path.suffix == ".safetensors":
        _show_tensors(path)
    elif path.suffix == ".bin":
        _show_tokens(path, rows)
    elif path.name.endswith((".warc.gz", ".warc")):
        _show_warc(path, rows)
    else:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
        if b"\0" in head:
            console.print(f"{path}: {size(path.stat().st_size)}, no text", markup=False, soft_wrap=True)
        else:
            console.print(head.decode("utf-8", "replace"), markup=False, soft_wrap=True)


def _json_row(path: Path, number: int, line: str) -> dict[str, Any]:
    row = jsons.loads(line) if line.strip() else {}
    if not isinstance(row, dict):
        raise BadInput(f"{path}: line {number} is no JSON object")
    return row


def _show_tensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            slices = [(name, file.get_slice(name)) for name in file.keys()]  # noqa: SIM118 (not a dict)
            table = [
                (name, part.get_dtype(), " x ".join(map(str, part.get_shape()))) for name, part in slices
            ]
    except SafetensorError as error:
        raise BadInput(f"{path} is damaged: {error}") from None
    print_table(("tensor", "type", "shape"), table)


def _show_folder(path: Path) -> None:
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and ".work" not in file.parts]
    print_table(("file", "size"), [(str(file), size(file.stat().st_size)) for file in files])


def _show_rows(table: list[dict[str, Any]], rows: int, find: str | None) -> None:
    if find is not None:
        table = [
            row for row in table if find.lower() in jsons.dumps(row, ensure_ascii=False, default=str).lower()
        ]
        console.print(f"{len(table):,} rows contain {find!r}", markup=False)
    for row in table[:rows]:
        console.rule(characters="-")
        for key, value in row.items():
            text = value if isinstance(value, str) else jsons.dumps(value, ensure_ascii=False, default=str)
            console.print(f"{key}: {text[:2000]}", markup=False, soft_wrap=True)


def _show_tokens(path: Path, rows: int) -> None:
    from crawltalk.core.shards import TokenShards
    from crawltalk.tokenizer import Tokenizer

    split = path.name.split("-")[0]
    shards = TokenShards(path.parent, split)
    console.print(
        f"{path}: {len(shards):,} tokens in the split {split!r}; the first {rows * 100}:", markup=False
    )
    tokenizer = Tokenizer.load(path.parent.parent / "tokenizer")
    console.print(
        tokenizer.decode(shards.window(0, min(rows * 100, len(shards))).tolist()),
        markup=False,
        soft_wrap=True,
    )


def _show_warc(path: Path, rows: int) -> None:
    from fastwarc.warc import ArchiveIterator

    for index, record in enumerate(ArchiveIterator(str(path))):
        if index == rows:
            break
        console.rule(characters="-")
        for key, value in [
            *record.headers.items(),
            *(record.http_headers.items() if record.http_headers else ()),
        ]:
            console.print(f"{key}: {value}", markup=False, soft_wrap=True)
        console.print(
            record.reader.read(1500).decode("utf-8", errors="replace"), markup=False, soft_wrap=True
        )
