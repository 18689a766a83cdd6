"""Pages out of any file that the data stage takes: WARC, WET and ARC, rows of texts, single pages, and archives of
all these.
"""

import io
import re
import shutil
import tarfile
import tempfile
import uuid
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.formats import (
    COMPRESSIONS,
    FORMATS,
    READ_ERRORS,
    SINGLE,
    Format,
    detect_format,
    format_by_content,
    format_by_name,
    open_plain,
    plain,
    read_single,
)
from crawltalk.core.printable import printable
from crawltalk.data.read.charset import decode
from crawltalk.data.read.rows import Unreadable, csv_rows, json_rows, parquet_rows, read_rows
from crawltalk.data.read.warc import Page, read_pages

UNREADABLE = "file that cannot be read"
"""The fault of the one page that stands for a whole file."""
_ENDINGS = re.compile(
    rf"(?:{'|'.join(map(re.escape, FORMATS))})+(?:{'|'.join(map(re.escape, COMPRESSIONS))})?$", re.I
)
_TRIES = 3
_BLOCK = 1 << 20
_HEAD = 4096
_NESTED = 3  # archives in archives
_MOST_PACKED = (
    200  # times that a file in an archive may be larger than its compressed form; WARC files are stored
)
_SMALL = 64 << 20  # bytes for which this does not matter
_ARCHIVE_ERRORS = (*READ_ERRORS, zipfile.BadZipFile, tarfile.TarError, RuntimeError, NotImplementedError)
"""The last two: zipfile's, for a member that needs a password, or a compression that it does not know."""

Warn = Callable[[str], None]


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


@contextmanager
def unpacked(path: Path, folder: Path, warn: Warn) -> Iterator[list[Path]]:
    """The files to read, one after the other: the file itself; of an archive, such as a WACZ, first its WARC files and
    files of rows, unpacked into `folder` and deleted afterwards, then the archive, for the single pages in it.
    """
    if detect_format(path) not in ("zip", "tar"):
        yield [path]
        return
    with tempfile.TemporaryDirectory(prefix="unpacked-", dir=folder) as temporary:
        yield list(_unpack(path, Path(temporary), warn, _NESTED))


def read_input(path: Path, max_page_bytes: int, warn: Warn, text_column: str | None = None) -> Iterator[Page]:
    """The pages of one file, whose name or first bytes say what it is; if neither does, it is read as WARC. Of an
    archive only the single pages (`unpacked` gives the rest). `warn` is called with one line for each damage.

    Rows of JSON, CSV and Parquet files need a column of texts (`text_column`, or an evident one); `id`, `url` and
    `date` are optional. A row that cannot be used has the reason in `fault`. A file that cannot be read is one page
    with the fault `UNREADABLE`. Raises BadInput if it is not clear which column holds the texts.
    """
    match detect_format(path):
        case "json":
            rows = json_rows(path, max_page_bytes, warn)
        case "csv":
            rows = csv_rows(path, max_page_bytes, warn)
        case "parquet":
            rows = parquet_rows(path, text_column, warn)
        case "zip" | "tar":
            yield from _archived_pages(path, max_page_bytes, warn)
            return
        case "html" | "text" | "mhtml" as format_:
            yield _single_file(path, format_, max_page_bytes, warn)
            return
        case _:
            yield from read_pages(path, max_page_bytes, warn)
            return
    try:
        yield from read_rows(path, rows, text_column, max_page_bytes, warn)
    except Unreadable as error:
        warn(str(error))
        yield _fault_page(path.name, UNREADABLE)


def dump_name(name: str) -> str:
    """The value of FineWeb's column `dump`: the file's name without its suffixes."""
    return _ENDINGS.sub("", name) or name


def _single_file(path: Path, format_: Format, max_page_bytes: int, warn: Warn) -> Page:
    try:
        with open_plain(path) as file:
            return _single_page(path.name, file.read(max_page_bytes + 1), format_, max_page_bytes)
    except READ_ERRORS as error:
        warn(f"{path.name} is broken ({error})")
        return _fault_page(path.name, UNREADABLE)


def _single_page(name: str, content: bytes, format_: Format, max_page_bytes: int) -> Page:
    if len(content) > max_page_bytes:
        return _fault_page(name, f"more than {max_page_bytes:,} bytes")
    try:
        single = read_single(name, content, format_)
    except BadInput:
        return _fault_page(name, "no HTML page in it")
    page = _fault_page(name, None if single.body.strip() else "empty body")
    page.url = single.url
    if page.fault is None and format_ == "text":
        page.text = decode(single.body)
    elif page.fault is None:
        page.body = single.body
    return page


def _fault_page(name: str, fault: str | None) -> Page:
    name = name.encode("utf-8", "replace").decode()
    id_ = f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, name)}>"
    return Page(id=id_, url="", date="", body=b"", charset=None, fault=fault)


# --- archives ---


class _Member(NamedTuple):
    """A file in an archive."""

    name: str
    size: int
    packed: int
    """Bytes of its compressed form."""
    open: Callable[[], IO[bytes]]


def _members(path: Path) -> Iterator[_Member]:
    """The files in a ZIP or tar archive, to be opened one after the other."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    yield _Member(
                        info.filename, info.file_size, info.compress_size, partial(archive.open, info)
                    )
        return
    with open_plain(path) as file, tarfile.open(fileobj=file, mode="r|") as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined] - it would keep all of them
            if member.isfile():
                yield _Member(member.name, member.size, member.size, partial(_open_in_tar, archive, member))


def _open_in_tar(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(member)
    assert file is not None, member.name
    return file


def _format_in(name: str, wacz: bool) -> Format | None:
    """What a file of an archive holds that is to be read, by its name."""
    parts = PurePosixPath(name).parts
    if any(part.startswith((".", "__MACOSX")) for part in parts) or (wacz and parts[0] != "archive"):
        return None
    return format_by_name(name)


def _is_wacz(path: Path) -> bool:
    """Whether it is a WACZ, whose pages are in `archive/` and the rest about them."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except _ARCHIVE_ERRORS:
        return False
    return any(name.startswith("archive/") and format_by_name(name) == "warc" for name in names)


def _unpack(path: Path, folder: Path, warn: Warn, nested: int) -> Iterator[Path]:
    """Copy the files out of an archive that hold many pages. Yields them, then the archive."""
    wacz = _is_wacz(path)
    try:
        for number, member in enumerate(_members(path)):
            name, size = member.name, member.size
            format_ = _format_in(name, wacz)
            if format_ is None or format_ in SINGLE:
                continue
            if size > max(_SMALL, _MOST_PACKED * member.packed):
                warn(f"{path.name}: {printable(name)} swells to {size:,} bytes and is left out")
                continue
            target = folder / f"{number:06d}" / PurePosixPath(name).name
            target.parent.mkdir()
            with member.open() as source, open(target, "wb") as copy:
                _copy(
                    source,
                    copy,
                    size,
                    lambda what, name=name: warn(f"{path.name}: {printable(name)} {what}"),
                )
            if format_ not in ("zip", "tar"):
                yield target
            elif nested:
                yield from _unpack(target, target.parent, warn, nested - 1)
            else:
                warn(f"{path.name}: {printable(name)} is an archive in too many archives, and left out")
    except _ARCHIVE_ERRORS as error:
        warn(f"{path.name} is broken ({printable(str(error))}); what could be read before that is kept")
    yield path


def _copy(source: IO[bytes], copy: IO[bytes], size: int, warn: Warn) -> None:
    """Copy a file of an archive. If its checksum is wrong, which shows at its last byte, what was read stays."""
    left = max(0, size - 1)
    try:
        while block := source.read(min(_BLOCK, left)) if left else b"":
            copy.write(block)
            left -= len(block)
        copy.write(source.read())
    except _ARCHIVE_ERRORS as error:
        warn(f"is damaged ({printable(str(error))}); what could be read is kept")


def _archived_pages(path: Path, max_page_bytes: int, warn: Warn) -> Iterator[Page]:
    """The single pages in an archive."""
    wacz, left_out, found = _is_wacz(path), Counter[str](), 0
    try:
        for member in _members(path):
            format_ = _format_in(member.name, wacz)
            if format_ is None or format_ in SINGLE:
                page = None if wacz else _archived_page(path.name, member, format_, max_page_bytes, warn)
                if page is None:
                    left_out[PurePosixPath(member.name).suffix.lower()[:12] or "without an ending"] += 1
                    continue
                yield page
            found += 1
    except _ARCHIVE_ERRORS as error:
        warn(f"{path.name} is broken ({printable(str(error))}); what could be read before that is kept")
        if not found:
            yield _fault_page(path.name, UNREADABLE)
            return
    if left_out and not wacz:
        kinds = ", ".join(f"{count:,} {printable(kind)}" for kind, count in left_out.most_common(5))
        warn(f"{path.name}: {left_out.total():,} files in it are not read: {kinds}")
    if not found:
        yield _fault_page(path.name, "archive without pages")


def _archived_page(
    archive: str, member: _Member, format_: Format | None, max_page_bytes: int, warn: Warn
) -> Page | None:
    """A file in an archive as a page; None if neither its name nor its first bytes say that it is one."""
    try:
        with member.open() as file:
            head = file.read(_HEAD)
            format_ = format_ or format_by_content(head)
            if format_ not in SINGLE:
                return None
            packed = io.BytesIO(head + file.read(max_page_bytes + 1))
        with plain(packed) as file:
            return _single_page(member.name, file.read(max_page_bytes + 1), format_, max_page_bytes)
    except _ARCHIVE_ERRORS as error:
        warn(f"{archive}: {printable(member.name)} is damaged ({printable(str(error))})")
        return _fault_page(f"{archive} {member.name}", UNREADABLE)
