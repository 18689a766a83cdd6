"""Pages out of any file that the data stage takes: WARC and WET, or texts as JSONL and Parquet (FineWeb's
columns).
"""

import gzip
import re
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.data.read.warc import Page, read_pages

_ENDINGS = re.compile(r"\.(?:warc|wet|arc|jsonl|ndjson|parquet)(?:\.gz|\.zst)?$", re.I)
_TRIES = 3


@contextmanager
def local_copy(source: str, folder: Path) -> Iterator[Path]:
    """The file itself, or, for a URL, a copy in `folder` that is deleted afterwards. Raises MissingInput if it
    cannot be fetched.
    """
    if "://" not in source:
        yield Path(source)
        return
    import fsspec

    own_folder = folder / f"fetched-{zlib.crc32(source.encode()):08x}"
    own_folder.mkdir(exist_ok=True)
    copy = own_folder / source.rstrip("/").rsplit("/", 1)[-1]
    try:
        for left in reversed(range(_TRIES)):
            try:
                system, path = fsspec.core.url_to_fs(source)
                system.get_file(path, str(copy))
                break
            except ImportError as error:
                raise MissingInput(f"{source} needs a package that is not installed ({error})") from None
            except Exception as error:  # each file system has exceptions of its own
                if not left:
                    raise MissingInput(
                        f"{source} cannot be fetched ({type(error).__name__}: {error}); run again later"
                    ) from None
        yield copy
    finally:
        shutil.rmtree(own_folder, ignore_errors=True)


def read_input(path: Path, max_page_bytes: int, warn: Callable[[str], None]) -> Iterator[Page]:
    """The pages of one file. Its suffix says the format; an unknown one means WARC. `warn` is called with one
    line for each damage.

    Rows of JSONL and Parquet need a `text`; `id`, `url` and `date` are optional. A row that cannot be used has
    the reason in `fault`. Raises BadInput if a Parquet file is damaged or has no column `text`.
    """
    name = path.name.lower()
    if name.endswith((".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")):
        return _read_rows(path, _json_rows(path, max_page_bytes, warn), max_page_bytes)
    if name.endswith(".parquet"):
        return _read_rows(path, _parquet_rows(path), max_page_bytes)
    return read_pages(path, max_page_bytes, warn)


def dump_name(name: str) -> str:
    """The value of FineWeb's column `dump`: the file's name without its suffixes."""
    return _ENDINGS.sub("", name)


def _read_rows(path: Path, rows: Iterable[Any], max_page_bytes: int) -> Iterator[Page]:
    for number, row in enumerate(rows, 1):
        fields = row if isinstance(row, dict) else {}
        text = fields.get("text")
        fault = None
        if row is _TOO_LONG:
            fault = f"more than {max_page_bytes:,} bytes"
        elif not fields:
            fault = "not a JSON object"
        elif not isinstance(text, str):
            fault = "no text"
        elif len(text) > max_page_bytes:
            fault = f"more than {max_page_bytes:,} bytes"
        elif not text.strip():
            fault = "empty text"
        identifier, url, date = (fields.get(key) for key in ("id", "url", "date"))
        yield Page(
            id=str(identifier or f"<{path.name}:{number}>"),
            url=str(url or ""),
            date=str(date or ""),
            body=b"",
            charset=None,
            fault=fault,
            text=None if fault else text,
        )


_TOO_LONG = object()


def _json_rows(path: Path, max_page_bytes: int, warn: Callable[[str], None]) -> Iterator[Any]:
    decoder = msgspec.json.Decoder()
    with gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb") as file:
        try:
            for line in _lines(file, 4 * max_page_bytes):  # escapes and other fields take room, too
                if line is None:
                    yield _TOO_LONG
                elif line.strip():
                    try:
                        yield decoder.decode(line)
                    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                        yield None
        except (OSError, EOFError, zlib.error) as error:
            warn(f"{path.name} is broken ({error}); the rows before that are kept")


def _lines(file: BinaryIO | gzip.GzipFile, limit: int) -> Iterator[bytes | None]:
    """Lines; None for one that is longer than `limit`, so that a huge line is never held in memory."""
    while line := file.readline(limit):
        if line.endswith(b"\n") or len(line) < limit:
            yield line
            continue
        while (rest := file.readline(limit)) and not rest.endswith(b"\n"):
            pass
        yield None


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = [name for name in ("text", "id", "url", "date") if name in file.schema_arrow.names]
            if "text" not in columns:
                raise BadInput(f"{path} has no column 'text'; it has: {', '.join(file.schema_arrow.names)}")
            for batch in file.iter_batches(1000, columns=columns):
                yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise BadInput(f"{path} is not a Parquet file: {error}") from None
