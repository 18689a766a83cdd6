"""Documents as Parquet files: zstd, FineWeb's columns (Penedo et al. 2024, dataset card), readable by any Parquet tool.

pyarrow is imported when a file is written or read, so that `crawltalk --help` does not pay for it.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
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

_BATCH = 1000  # rows in memory at once, and rows in a row group


def write_documents(path: Path, documents: Iterable[Document]) -> int:
    """Write documents to one Parquet file, atomically. Returns their number."""
    return write_table(path, documents, COLUMNS)


def read_documents(folder: Path) -> Iterator[Document]:
    """The documents of `folder/documents-*.parquet`, in order. Raises MissingInput if there is no such file."""
    paths = sorted(folder.glob("documents-*.parquet"))
    if not paths:
        raise MissingInput(f"{folder} has no documents-*.parquet; make them with: crawltalk data")
    for path in paths:
        yield from read_document_file(path)


def read_document_file(path: Path) -> Iterator[Document]:
    """The documents of one Parquet file. Raises BadInput if it is not one, or lacks a column."""
    for row in read_table(path, list(COLUMNS)):
        yield Document(**row)


def write_table(path: Path, rows: Iterable[msgspec.Struct], columns: Mapping[str, str]) -> int:
    """Write Structs to one Parquet file (zstd), atomically; `columns` maps field names to Arrow types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in columns.items()])
    temporary = path.with_name(path.name + ".tmp")
    iterator, count = iter(rows), 0
    with open(temporary, "wb") as file:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            while batch := list(islice(iterator, _BATCH)):
                table = {name: [getattr(row, name) for row in batch] for name in columns}
                writer.write_table(pa.table(table, schema))
                count += len(batch)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return count


def read_table(path: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
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
