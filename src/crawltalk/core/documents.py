"""Documents as Parquet files: zstd, FineWeb's columns (Penedo et al. 2024, dataset card), readable by any
Parquet tool.

pyarrow is imported when a file is written or read, so that `crawltalk --help` does not pay for it.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.types import Document

COLUMNS = {
    "text": "string",
    "id": "string",
    "dump": "string",
    "url": "string",
    "date": "string",
    "file_path": "string",
    "language": "string",
    "language_score": "float64",
    "token_count": "int64",
}
"""FineWeb's columns and their Arrow types."""

ROWS_PER_FILE = 100_000
_BATCH = 1000  # rows in memory at once, and rows in a row group


def write_documents(path: str | Path, documents: Iterable[Document]) -> int:
    """Write documents to one Parquet file, atomically. Returns their number."""
    return write_table(path, documents, COLUMNS)


def read_documents(folder: str | Path) -> Iterator[Document]:
    """The documents of `folder/documents-*.parquet`, in order. Raises MissingInput if there is no such file."""
    paths = sorted(Path(folder).glob("documents-*.parquet"))
    if not paths:
        raise MissingInput(f"{folder} has no documents-*.parquet; make them with: crawltalk data")
    for path in paths:
        yield from read_document_file(path)


def read_document_file(path: str | Path) -> Iterator[Document]:
    """The documents of one Parquet file. Raises BadInput if it is not one, or lacks a column."""
    for row in read_table(path, list(COLUMNS)):
        yield Document(**row)


def write_table(path: str | Path, rows: Iterable[msgspec.Struct], columns: Mapping[str, str]) -> int:
    """Write Structs to one Parquet file (zstd), atomically; `columns` maps field names to Arrow types."""
    import pyarrow as pa

    schema, count = arrow_schema(columns), 0
    iterator = iter(rows)
    with _file_writer(path, schema) as writer:
        while batch := list(islice(iterator, _BATCH)):
            writer.write_table(
                pa.table({name: [getattr(row, name) for row in batch] for name in columns}, schema)
            )
            count += len(batch)
    return count


def arrow_schema(columns: Mapping[str, str]) -> Any:
    """Field names and Arrow types as an Arrow schema."""
    import pyarrow as pa

    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in columns.items()])


@contextmanager
def _file_writer(path: str | Path, schema: Any) -> Iterator[Any]:
    """A Parquet writer whose file appears under its name when all is written."""
    import pyarrow.parquet as pq

    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            yield writer
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


class TableFiles:
    """Writes Arrow tables as NAME-00000.parquet, NAME-00001.parquet, ... of `ROWS_PER_FILE` rows; at least
    one file.
    """

    def __init__(self, folder: Path, name: str, columns: Mapping[str, str]) -> None:
        self.folder, self.name, self.schema = folder, name, arrow_schema(columns)
        self.rows = 0
        self._file = ExitStack()
        self._writer: Any = None

    def write(self, table: Any) -> None:
        """Add the rows of a table with these columns."""
        while table.num_rows:
            part = table.slice(0, ROWS_PER_FILE - self.rows % ROWS_PER_FILE)
            self._open()
            self._writer.write_table(part, _BATCH)
            self.rows += part.num_rows
            if self.rows % ROWS_PER_FILE == 0:
                self._close()
            table = table.slice(part.num_rows)

    def _open(self) -> None:
        if self._writer is None:
            path = self.folder / f"{self.name}-{self.rows // ROWS_PER_FILE:05d}.parquet"
            self._writer = self._file.enter_context(_file_writer(path, self.schema))

    def _close(self) -> None:
        self._writer = None
        self._file.close()

    def __enter__(self) -> "TableFiles":
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            if not self.rows:
                self._open()
            self._close()
        else:
            self._file.__exit__(*error)


def read_table(path: str | Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of one Parquet file. Raises BadInput if it is not one, or lacks a column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise BadInput(f"{path} lacks the columns {', '.join(missing)}")
            for batch in file.iter_batches(_BATCH, columns=columns):
                yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise BadInput(f"{path} is not a Parquet file: {error}") from None


def titled(row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The first line of a page, and its row with the lines after it as the text."""
    title, _, text = (row["text"] or "").partition("\n")
    return title, {**row, "text": text}
