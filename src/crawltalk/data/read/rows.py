"""Texts that come as rows: JSON (one object a line, an array, or objects one after the other), CSV and Parquet.

A row that cannot be used is returned with the reason in `fault`, so that it is counted; the others are kept.
"""

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec

from crawltalk.core.errors import BadInput
from crawltalk.core.formats import READ_ERRORS, open_plain
from crawltalk.core.printable import printable
from crawltalk.data.read.warc import Page

# fmt: off
TEXT = (
    "text", "content", "raw_content", "contents", "page_content", "full_text", "maintext", "body",
    "document", "article", "markdown", "passage", "story",
)
# fmt: on
"""Names of columns that hold texts: in FineWeb, C4, Dolma and The Pile `text`, in OSCAR `content`, in RedPajama-V2
`raw_content`.
"""
HTML = ("html", "raw_html", "html_content")
"""Names of columns that hold pages."""
# fmt: off
_FACTS = frozenset((
    "id", "_id", "uuid", "doc_id", "url", "uri", "source_url", "link", "source", "domain", "date",
    "timestamp", "created", "added", "dump", "file_path", "language", "lang", "title", "author", "meta",
    "metadata", "license", "digest", "hash", "sha256", "md5", "filename", "path", "split", "label",
))  # columns that are about a text
# fmt: on
_URLS = ("url", "uri", "source_url", "metadata.url", "meta.url", "warc_headers.warc-target-uri")
_DATES = ("date", "timestamp", "metadata.date", "meta.timestamp", "warc_headers.warc-date")
_SHOWN = 12  # columns in a message
_PEEK = 100  # rows from which the column is chosen
_BATCH = 128
_LONGEST_URL = 4000
_MOST_LOST = 1_000_000  # rows counted for a damaged row group, whose own count may be damaged, too
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html[\s>])", re.I)


class Unreadable(BadInput):
    """A file from which no row can be taken."""


class Fault(NamedTuple):
    """Stands for a row or a value that cannot be read."""

    reason: str


TOO_LONG = Fault("longer than the limit")


def read_rows(
    path: Path, rows: Iterable[Any], column: str | None, max_page_bytes: int, warn: Callable[[str], None]
) -> Iterator[Page]:
    """The pages in rows: dicts, or the `Fault` of a row. `column` names the one with the texts, if the user has.

    Raises Unreadable if it is not there or there is none, BadInput if none was named and several may be it.
    """
    iterator = iter(rows)
    first = list(islice(iterator, _PEEK))
    if not first:
        warn(f"{path.name} is empty")
    name = choose_column(path.name, [row for row in first if isinstance(row, dict)], column)
    if column is None and name != "text":
        warn(f"the texts are those of the column {name!r}, as there is no 'text' (data.text_column)")
    for number, row in enumerate(chain(first, iterator), 1):
        yield _page(f"<{path.name}:{number}>", row, name, max_page_bytes)


def choose_column(file: str, rows: list[dict[str, Any]], column: str | None) -> str:
    """The column that holds the texts of these rows. Raises BadInput, see `read_rows`."""
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    seen = f"it has: {', '.join(printable(name, 40) for name in names[:_SHOWN])}{', ...' * (len(names) > _SHOWN)}"
    if column is not None:
        if rows and all(_field(row, column) is _ABSENT for row in rows):
            raise Unreadable(f"{file} has no column {column!r}; {seen}; name another with --data.text_column")
        return column
    if not rows:
        return "text"
    full = {name for name in names if any(_is_text(row.get(name)) for row in rows)}
    if "text" in full or ("text" in names and not full - _FACTS):
        return "text"
    for known in (TEXT, HTML, sorted(full - _FACTS)):
        found = [name for name in known if name in full]
        if len(found) == 1:
            return found[0]
        if found:
            break
    if len(rows) == 1 or not full - _FACTS:  # a single object is hardly a corpus
        raise Unreadable(f"{file} has no column of texts; {seen}; name one with --data.text_column")
    raise BadInput(
        f"it is not clear which column of {file} holds the texts; {seen}; name one with --data.text_column"
    )


def _is_text(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(part, str) for part in value)
    return isinstance(value, str | bytes) and bool(value)


_ABSENT = object()


def _field(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column; a name with dots goes into objects. `_ABSENT` if there is none."""
    if name in row:
        return row[name]
    first, _, rest = name.partition(".")
    inner = row.get(first)
    return _field(inner, rest) if rest and isinstance(inner, dict) else _ABSENT


def _page(own_id: str, row: Any, column: str, max_page_bytes: int) -> Page:
    page = Page(id=own_id, url="", date="", body=b"", charset=None, fault=None)
    if not isinstance(row, dict) or not row:
        if row is TOO_LONG:
            page.fault = f"more than {max_page_bytes:,} bytes"
        else:
            page.fault = row.reason if isinstance(row, Fault) else "not a JSON object"
        return page
    identifier = row.get("id")
    if isinstance(identifier, str | int | float) and str(identifier):
        page.id = _clean(str(identifier))[:_LONGEST_URL]
    url = next((value for name in _URLS if isinstance(value := _field(row, name), str) and value), "")
    page.url = _clean(url) if len(url) <= _LONGEST_URL else ""
    page.date = next((found for name in _DATES if (found := _date(_field(row, name)))), "")
    _fill(page, _field(row, column), column, max_page_bytes)
    return page


def _fill(page: Page, value: Any, column: str, max_page_bytes: int) -> None:
    """Set the text or the body of a page, or the fault."""
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        value = "\n".join(value)
    if isinstance(value, Fault):
        page.fault = value.reason
    elif value is None or value is _ABSENT:
        page.fault = "no text"
    elif not isinstance(value, str | bytes):
        page.fault = f"the text is a {_KINDS.get(type(value), type(value).__name__)}"
    else:
        try:
            data = value.encode() if isinstance(value, str) else value
            if len(data) > max_page_bytes:
                page.fault = f"more than {max_page_bytes:,} bytes"
            elif column != "text" and _PAGE.match(data):
                page.body = data
            else:
                page.text = _checked(value if isinstance(value, str) else data.decode("utf-8-sig"))
        except UnicodeEncodeError:
            page.fault = "half a surrogate pair in the text"
        except UnicodeDecodeError:
            page.fault = "bytes that are not UTF-8"
        except ValueError as error:
            page.fault = str(error)


_KINDS = {list: "list", dict: "nested object", bool: "boolean", int: "number", float: "number"}


def _checked(text: str) -> str:
    """The text without NUL characters. Raises ValueError with the reason if it is none."""
    if not text.strip():
        raise ValueError("empty text")
    head = text[:4096]
    if len(_CONTROL.findall(head)) > 0.05 * len(head):  # as for pages
        raise ValueError("binary data that calls itself text")
    return text.replace("\0", "") if "\0" in text else text


def _clean(text: str) -> str:
    return "".join(text.encode("utf-8", "replace").decode().replace("\0", "").split("\n"))


def _date(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date | int | float) and not isinstance(value, bool):
        return str(value)
    return _clean(value)[:40] if isinstance(value, str) else ""


# --- JSON ---


def json_rows(path: Path, max_page_bytes: int, warn: Callable[[str], None]) -> Iterator[Any]:
    """The objects of a file with one a line, of an array, or of a file with objects that span lines. `warn` is
    called if the file ends too early.
    """
    limit = 4 * max_page_bytes  # escapes and other fields take room, too
    decoder = msgspec.json.Decoder()
    with open_plain(path) as packed:
        file = in_utf8(packed)
        try:
            first = _first_line(file, limit)
            lines = chain([first], _lines(file, limit))
            spans = _spans_lines(first)
            count = 0
            for piece in _objects(lines, limit) if spans else lines:
                count += 1
                if piece is None:
                    yield TOO_LONG
                elif piece.strip():
                    yield _decoded(decoder, piece.strip(b"\x1e \t\r\n"))
            if spans and not count:
                yield Fault("no JSON object")
        except READ_ERRORS as error:
            warn(f"{path.name} is broken ({error}); the rows before that are kept")


def _decoded(decoder: msgspec.json.Decoder, piece: bytes) -> Any:
    try:
        return decoder.decode(piece)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:  # Python's own reader also takes NaN, which many write, and numbers of any size
        return json.loads(piece.decode(), parse_int=str)
    except UnicodeDecodeError:
        return Fault("not UTF-8")
    except (ValueError, RecursionError):
        return Fault("not a JSON object")


def _first_line(file: IO[bytes], limit: int) -> bytes | None:
    """The first line that is not blank; empty if there is none."""
    for line in _lines(file, limit):
        if line is None or line.strip():
            return line
    return b""


def _spans_lines(first: bytes | None) -> bool:
    """Whether rows are not lines: the file begins with an array, or with a line that only opens an object."""
    start = (first or b"").strip()
    return start.startswith(b"[") or _OPEN_OBJECT.fullmatch(start) is not None


_STRING = rb"\"(?:[^\"\\]|\\.)*\"\s*"
_OPEN_OBJECT = re.compile(
    rb"\{\s*(?:%b:\s*(?:%b|[\w.+-]+\s*),\s*)*(?:%b:\s*[\[{]\s*)?" % (_STRING, _STRING, _STRING)
)
_BETWEEN = re.compile(rb"(?<=\})\s*,\s*(?=\{)")
_OPENS, _ENDS = re.compile(rb"[{}\"]"), re.compile(rb"[\"\\]")


def _objects(lines: Iterable[bytes | None], limit: int) -> Iterator[bytes | None]:
    """Each object of an array, or of objects one after the other; None for one that is longer than `limit`.

    No string of JSON holds a line break, so an object with such a string is broken, and the next one is looked for
    behind it.
    """
    depth, size, quoted = 0, 0, False
    pieces: list[bytes] = []
    for line in lines:
        if line is None:  # it may have held the ends of any number of objects
            yield None
            depth, size, quoted, pieces = 0, 0, False, []
            continue
        start = position = 0
        while match := (_ENDS if quoted else _OPENS).search(line, position):
            position = match.end()
            mark = match[0]
            if quoted:
                if mark == b"\\":
                    position += 1
                else:
                    quoted = False
            elif mark == b'"':
                quoted = depth > 0
            elif mark == b"{":
                depth += 1
                if depth == 1:
                    start = match.start()
            elif depth:
                depth -= 1
                if depth == 0:
                    whole = b"".join([*pieces, line[start:position]])
                    yield whole if size + position - start <= limit else None
                    pieces, size = [], 0
        if quoted:
            yield from _BETWEEN.split(b"".join([*pieces, line[start:]]).rstrip(b"], \r\n"))
            depth, size, quoted, pieces = 0, 0, False, []
        elif depth:
            size += len(line) - start
            if size <= limit:
                pieces.append(line[start:])
            else:
                pieces = []
    if depth:
        yield b"".join(pieces) if pieces else None


def _lines(file: IO[bytes], limit: int) -> Iterator[bytes | None]:
    """Lines; None for one that is longer than `limit`, so that a huge line is never held in memory."""
    while line := file.readline(limit):
        if line.endswith(b"\n") or len(line) < limit:
            yield line
            continue
        while (rest := file.readline(limit)) and not rest.endswith(b"\n"):
            pass
        yield None


def in_utf8(file: IO[bytes]) -> IO[bytes]:
    """The same text in UTF-8, without a byte order mark."""
    head = file.read(4)
    for mark, encoding in (
        (codecs.BOM_UTF8, ""),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if head.startswith(mark):
            return io.BufferedReader(_Recoded(file, head[len(mark) :], encoding))  # type: ignore[return-value]
    return io.BufferedReader(_Recoded(file, head, ""))  # type: ignore[return-value]


class _Recoded(io.RawIOBase):
    """The rest of a file behind `head`, in UTF-8."""

    def __init__(self, file: IO[bytes], head: bytes, encoding: str) -> None:
        self.file, self.held = file, head
        self.decoder = codecs.getincrementaldecoder(encoding)("replace") if encoding else None
        if self.decoder is not None:
            self.held = self.decoder.decode(head).encode()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.held:
            data = self.file.read1(len(buffer))  # type: ignore[attr-defined] - before the damage, if there is one
            if self.decoder is not None:
                self.held = self.decoder.decode(data, not data).encode("utf-8", "replace")
            else:
                self.held = data
            if not data:
                break
        count = min(len(buffer), len(self.held))
        buffer[:count], self.held = self.held[:count], self.held[count:]
        return count


# --- CSV ---


def csv_rows(path: Path, max_page_bytes: int, warn: Callable[[str], None]) -> Iterator[Any]:
    """The rows of a file with a line of names first. The sign between fields is the most frequent one in it."""
    csv.field_size_limit(max_page_bytes)
    with open_plain(path) as packed:
        too_long = 0

        def lines() -> Iterator[str]:
            nonlocal too_long
            for line in _lines(in_utf8(packed), 4 * max_page_bytes):
                if line is None:
                    too_long += 1
                else:
                    yield line.decode("utf-8", "surrogateescape")

        try:
            iterator = lines()
            header = next(iterator, "")
            sign = max(",;\t|", key=header.count)
            names = next(csv.reader([header.rstrip("\r\n")], delimiter=sign), [])
            reader = csv.reader(iterator, delimiter=sign)
            while True:
                try:
                    fields = next(reader)
                except StopIteration:
                    break
                except csv.Error:
                    yield TOO_LONG
                    continue
                if fields:
                    yield _csv_row(names, fields, sign)
            for _ in range(too_long):
                yield TOO_LONG
        except READ_ERRORS as error:
            warn(f"{path.name} is broken ({error}); the rows before that are kept")


def _csv_row(names: list[str], fields: list[str], sign: str) -> Any:
    if len(names) == 1:  # texts that were written without quotes
        fields = [sign.join(fields)]
    if len(fields) != len(names):
        return Fault("another number of fields than columns")
    if any("\udc80" <= letter <= "\udcff" for field in fields for letter in field):
        return Fault("not UTF-8")
    return dict(zip(names, fields, strict=True))


# --- Parquet ---


def parquet_rows(
    path: Path, column: str | None, warn: Callable[[str], None]
) -> Iterator[dict[str, Any] | Fault]:
    """The rows of a Parquet file. Those of a row group that is damaged come as faults, from the damage on.

    Raises Unreadable if it is not a Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    damage = (OSError, ValueError, MemoryError, pa.ArrowException)
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        schema = file.schema_arrow
    except damage as error:
        raise Unreadable(f"{path.name} is not a Parquet file, or damaged: {_first(error)}") from None
    with file:
        columns = _parquet_columns(schema, column)
        for group in range(file.num_row_groups):
            rows, done = file.metadata.row_group(group).num_rows, 0
            try:
                for batch in file.iter_batches(
                    _BATCH, row_groups=[group], columns=columns, use_threads=False
                ):
                    values = [_values(array) for array in batch.columns]
                    for row in zip(*values, strict=True):
                        yield dict(zip(batch.schema.names, row, strict=True))
                    done += batch.num_rows
            except damage as error:
                warn(
                    f"{path.name}: row group {group + 1} of {file.num_row_groups} is damaged ({_first(error)}); "
                    f"{max(0, rows - done):,} of its {rows:,} rows are set aside"
                )
                for _ in range(min(rows - done, _MOST_LOST)):
                    yield Fault("damaged row group of a Parquet file")


def _first(error: BaseException) -> str:
    return printable(str(error).partition("\n")[0] or type(error).__name__, 120)


def _parquet_columns(schema: Any, column: str | None) -> list[str] | None:
    """What has to be read: the columns that may hold texts, and those about them; None for all of them."""
    import pyarrow as pa

    if column is None and "text" in schema.names:
        column = "text"
    if column is None:
        return None
    wanted = []
    for name in dict.fromkeys((column, "id", *_URLS, *_DATES)):
        first, _, rest = name.partition(".")
        if name in schema.names:
            wanted.append(name)
        elif rest and first in schema.names:
            kind = schema.field(first).type
            if pa.types.is_struct(kind) and kind.get_field_index(rest.split(".")[0]) >= 0:
                wanted.append(name)
    return wanted or None


def _values(array: Any) -> list[Any]:
    """The values of an Arrow array; a `Fault` for each that Python has no value for, such as a date in the year
    99999 (which of these errors Arrow raises depends on the type).
    """
    try:
        return array.to_pylist()
    except (ValueError, OverflowError, TypeError, NotImplementedError):
        return [_value(scalar) for scalar in array]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return Fault("not UTF-8")
    except (ValueError, OverflowError, TypeError, NotImplementedError):
        return Fault("a value that cannot be read")
