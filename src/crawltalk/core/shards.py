"""Token shards: flat files of token ids, and an index that says where each document begins.

train-00000.bin   uint16 (uint32 for vocabularies beyond 65,536), each document preceded by <|endoftext|>
index.json        {"dtype", "vocab_size", "eot", "train": {"files", "documents", "bytes"}, "val": {...}}
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.files import write_atomically

SHARD_TOKENS = 100_000_000
"""A file ends with the document that reaches this number of tokens."""


class ShardFile(msgspec.Struct):
    name: str
    tokens: int


class Split(msgspec.Struct):
    """One split of the corpus."""

    files: list[ShardFile]
    documents: list[tuple[int, str]]
    """(offset of its first token over all files, document id), in order."""
    bytes: int
    """UTF-8 bytes of the text behind the tokens."""


class ShardIndex(msgspec.Struct, kw_only=True):
    """index.json."""

    dtype: str
    vocab_size: int
    eot: int
    train: Split
    val: Split


class EncodedPieces:
    """Ids of documents before they are written to shards. Each file is complete or absent, so a run that was
    interrupted can use those that it finds.
    """

    def __init__(self, folder: str | Path, dtype: str) -> None:
        self.folder, self.dtype = Path(folder), dtype
        self.folder.mkdir(exist_ok=True)
        self._pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._ends: list[int] = []

    def add(self, texts: Sequence[str], encode: Callable[[], Sequence[np.ndarray]]) -> None:
        """Add the next documents. `encode` is called unless an earlier attempt has written their ids."""
        stem = f"encoded-{len(self._pieces):05d}"
        path, sizes_path = self.folder / f"{stem}.bin", self.folder / f"{stem}.sizes"
        if not sizes_path.exists():
            encoded = encode()
            write_atomically(path, np.concatenate(encoded).astype(self.dtype).tobytes())
            sizes = np.array([list(map(len, encoded)), [len(text.encode()) for text in texts]])
            write_atomically(sizes_path, sizes.tobytes())
        sizes = np.fromfile(sizes_path, np.int64).reshape(2, -1)
        ids = np.memmap(path, self.dtype, "r") if sizes[0].any() else np.empty(0, self.dtype)
        self._pieces.append((ids, np.cumsum(sizes[0]), sizes[1]))
        self._ends.append(len(sizes[1]) + (self._ends[-1] if self._ends else 0))

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        """Ids of a document, and the bytes of its text."""
        number = bisect_right(self._ends, row)
        ids, ends, sizes = self._pieces[number]
        index = row - (self._ends[number - 1] if number else 0)
        return ids[ends[index - 1] if index else 0 : ends[index]], int(sizes[index])


def write_split(
    folder: str | Path, name: str, documents: Iterable[tuple[str, np.ndarray, int]], eot: int, dtype: str
) -> Split:
    """Write (id, tokens, bytes of text) one after the other, each behind `eot`."""
    files: list[ShardFile] = []
    offsets: list[tuple[int, str]] = []
    part: list[np.ndarray] = []
    held = total = size = 0
    separator = np.array([eot], dtype=dtype)

    def close() -> None:
        nonlocal part, held
        path = Path(folder) / f"{name}-{len(files):05d}.bin"
        write_atomically(path, np.concatenate(part).tobytes())
        files.append(ShardFile(path.name, held))
        part, held = [], 0

    for identifier, tokens, length in documents:
        offsets.append((total, identifier))
        part += [separator, tokens.astype(dtype)]
        held += 1 + len(tokens)
        total += 1 + len(tokens)
        size += length
        if held >= SHARD_TOKENS:
            close()
    if part or not files:
        part = part or [np.empty(0, dtype=dtype)]
        close()
    return Split(files, offsets, size)


def write_index(folder: str | Path, index: ShardIndex) -> None:
    write_atomically(Path(folder) / "index.json", msgspec.json.encode(index))


class TokenShards:
    """One split, read through memory maps. Raises MissingInput or BadInput if it is not as the index says."""

    def __init__(self, folder: str | Path, split: str) -> None:
        folder = Path(folder)
        path = folder / "index.json"
        if not path.exists():
            raise MissingInput(
                f"{folder} has no token shards; make them with: crawltalk tokenizer {folder.parent}"
            )
        try:
            self.index = msgspec.json.decode(path.read_bytes(), type=ShardIndex)
        except msgspec.MsgspecError as error:
            raise BadInput(
                f"{path} is damaged ({error}); build it again with: crawltalk tokenizer {folder.parent}"
            ) from None
        self.split: Split = getattr(self.index, split)
        self.bytes = self.split.bytes
        self.documents = self.split.documents
        self.parts = [self._open(folder / file.name, file.tokens) for file in self.split.files]
        self._starts = np.cumsum([0, *(file.tokens for file in self.split.files)]).tolist()

    def _open(self, path: Path, tokens: int) -> np.ndarray:
        expected = tokens * np.dtype(self.index.dtype).itemsize
        size = path.stat().st_size if path.exists() else None
        if size != expected:
            raise BadInput(
                f"{path} has {size} bytes, its index says {expected}; build it again with: crawltalk tokenizer"
            )
        return (
            np.memmap(path, dtype=self.index.dtype, mode="r")
            if tokens
            else np.empty(0, dtype=self.index.dtype)
        )

    def __len__(self) -> int:
        return self._starts[-1]

    def window(self, start: int, length: int) -> np.ndarray:
        """`length` tokens from `start` on, int64. After the last token it wraps around to the first."""
        if len(self) == 0:
            raise BadInput("the token shards are empty; train on more documents: --tokens.include")
        pieces = []
        while length > 0:
            start %= len(self)
            part = bisect_right(self._starts, start) - 1
            piece = self.parts[part][start - self._starts[part] :][:length]
            pieces.append(piece)
            start += len(piece)
            length -= len(piece)
        return np.concatenate(pieces).astype(np.int64) if pieces else np.empty(0, dtype=np.int64)
