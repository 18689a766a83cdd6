"""Word n-grams of many texts as arrays, and which n-gram of a prompt comes with which piece of a reply more often than
chance would have it.

A hundred thousand conversations take seconds: words are 64-bit hashes, rare n-grams are dropped before anything is
sorted, and pairs are counted in one compiled loop that keeps no table of them.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

_TOKEN = re.compile(r"\w+|[^\w\s]")
_BASE = np.uint64(0x9E3779B97F4A7C15)
_SEED = np.uint64(0xC2B2AE3D27D4EB4F)
"""Of whole texts, so that one differs from an n-gram of the same words."""
_BUCKETS = 1 << 22


def words(text: str) -> list[str]:
    """The words and marks of a text, in small letters."""
    return _TOKEN.findall(text.casefold())


def part(text: str, place: int, length: int) -> tuple[int, int]:
    """Where `length` words of a text begin and end, in characters; the first is word number `place`."""
    spans = [match.span() for match in _TOKEN.finditer(text)]
    return spans[place][0], spans[place + length - 1][1]


def contains(text: str, piece: str, whole: bool = False) -> bool:
    """Whether the words of a text are these (`whole`), or hold these side by side."""
    said, wanted = words(text), words(piece)
    if whole:
        return said == wanted
    return any(said[at : at + len(wanted)] == wanted for at in range(len(said) - len(wanted) + 1))


class Words(NamedTuple):
    """Texts as hashes of words, one behind the other."""

    hashes: np.ndarray
    """(words) 64 bits."""
    starts: np.ndarray
    """(texts + 1) where each begins."""
    marks: np.ndarray
    """(words) whether it is a mark."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def owners(self) -> np.ndarray:
        """(words) the text of each."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))


class Vocabulary:
    """Hashes of words, the same for all texts that it has read."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def read(self, texts: Iterable[str]) -> Words:
        """The words of texts."""
        numbers, starts, known = list[int](), [0], self._numbers
        for text in texts:
            numbers += [known.setdefault(word, len(known)) for word in words(text)]
            starts.append(len(numbers))
        marks = np.array([not (word[0].isalnum() or word[0] == "_") for word in known], bool)
        indices = np.array(numbers, np.int64)
        return Words(_mix(indices.astype(np.uint64) + np.uint64(1)), np.array(starts), marks[indices])


class Postings(NamedTuple):
    """Which n-gram is in which text, by n-grams."""

    hashes: np.ndarray
    """(n-grams) sorted."""
    lengths: np.ndarray
    """(n-grams) words; 0 stands for a whole text."""
    starts: np.ndarray
    """(n-grams + 1) where the entries of each begin."""
    texts: np.ndarray
    """(entries) the numbers of texts, ascending within an n-gram."""
    places: np.ndarray
    """(entries) the word of the text at which the n-gram stands first."""

    def __len__(self) -> int:
        return len(self.hashes)

    def of(self, gram: int) -> slice:
        """The entries of an n-gram."""
        return slice(self.starts[gram], self.starts[gram + 1])

    @property
    def grams(self) -> np.ndarray:
        """(entries) the n-gram of each."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def only(self, entries: np.ndarray, least: int) -> "Postings":
        """Some of the entries (a mask), of those n-grams that have `least` of these."""
        left = np.bincount(self.grams[entries], minlength=len(self))
        kept = left >= least
        chosen = entries & kept[self.grams]
        return Postings(
            self.hashes[kept],
            self.lengths[kept],
            np.concatenate([[0], np.cumsum(left[kept])]),
            self.texts[chosen],
            self.places[chosen],
        )


def postings(texts: Words, longest: int, least: int, whole: bool = False) -> Postings:
    """The n-grams of 1 to `longest` words that `least` texts have, and, with `whole`, such whole texts."""
    found = [(hashes, at, np.full(len(at), length)) for length, at, hashes in _ngrams(texts, longest)]
    if whole:
        filled = np.flatnonzero(np.diff(texts.starts))
        found.append(
            (
                _frames(texts.hashes, texts.starts)[2][filled],
                texts.starts[filled],
                np.zeros(len(filled), np.int64),
            )
        )
    hashes, places, lengths = (np.concatenate([one[index] for one in found]) for index in range(3))
    buckets = (hashes % np.uint64(_BUCKETS)).astype(np.int64)
    frequent = np.bincount(buckets, minlength=_BUCKETS)[buckets] >= least
    hashes, places, lengths = hashes[frequent], places[frequent], lengths[frequent]
    unique, firsts, grams = np.unique(hashes, return_index=True, return_inverse=True)
    owners = texts.owners[places]
    pairs, entries = np.unique(
        grams * len(texts) + owners, return_index=True
    )  # once, where a text repeats it
    counts = np.bincount(pairs // max(1, len(texts)), minlength=len(unique))
    starts = np.concatenate([[0], np.cumsum(counts)])
    owners = owners[entries]
    every = Postings(unique, lengths[firsts], starts, owners, places[entries] - texts.starts[owners])
    return every.only(np.ones(len(entries), bool), least)


def without_marks(texts: Words, grams: Postings, least: int) -> np.ndarray:
    """(entries) whether an n-gram has `least` words that are no marks, or is a whole text with one."""
    before = np.concatenate([[0], np.cumsum(~texts.marks)])
    first, lengths = texts.starts[grams.texts] + grams.places, grams.lengths[grams.grams]
    ends = np.where(lengths, first + lengths, texts.starts[grams.texts + 1])
    return before[ends] - before[first] >= np.where(lengths, least, 1)


def fills_slot(texts: Words, grams: Postings, longest: int, fillers: int) -> np.ndarray:
    """(entries) whether an n-gram stands where `fillers` of the texts, which are all different, have something of 1 to
    `longest` words, the same before it and the same behind it, as in "Spell _.": what such a question asks about.
    """
    before, behind, _ = _frames(texts.hashes, texts.starts)
    every = [_mix(before[at] ^ _mix(behind[at + length - 1])) for length, at, _ in _ngrams(texts, longest)]
    frames = np.sort(np.concatenate(every))
    first = texts.starts[grams.texts] + grams.places
    own = _mix(before[first] ^ _mix(behind[first + grams.lengths[grams.grams] - 1]))
    order = np.argsort(own)  # neighbours are looked up in neighbouring memory
    filled = np.zeros(len(own), bool)
    found = own[order]
    filled[order] = np.searchsorted(frames, found, "right") - np.searchsorted(frames, found) >= fillers
    return filled


def _ngrams(texts: Words, longest: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(length, where they begin, hashes) of the n-grams of each length."""
    places, state = np.arange(len(texts.hashes)), np.zeros(len(texts.hashes), np.uint64)
    room = texts.starts[1:][texts.owners] - places
    for length in range(1, longest + 1):
        within = max(0, len(state) - length + 1)
        state[:within] = state[:within] * _BASE + texts.hashes[length - 1 :]
        begins = places[room >= length]
        yield length, begins, _mix(state[begins])


def _mix(values: np.ndarray) -> np.ndarray:
    """The finalizer of MurmurHash3."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    return values ^ (values >> np.uint64(33))


@njit(cache=True)
def _frames(hashes, starts):
    """For each word a hash of what stands before it in its text, and one of what stands behind it; for each text one
    of all of it.
    """
    before, behind = np.zeros(len(hashes), np.uint64), np.zeros(len(hashes), np.uint64)
    whole = np.zeros(len(starts) - 1, np.uint64)
    for text in range(len(starts) - 1):
        state = _SEED
        for place in range(starts[text], starts[text + 1]):
            before[place] = state
            state = (state ^ hashes[place]) * _BASE
            state ^= state >> np.uint64(29)
        whole[text] = state
        state = _SEED
        for place in range(starts[text + 1] - 1, starts[text] - 1, -1):
            behind[place] = state
            state = (state ^ hashes[place]) * _BASE
            state ^= state >> np.uint64(29)
    return before, behind, whole


class Association(NamedTuple):
    """The label that goes with each n-gram most."""

    labels: np.ndarray
    """(n-grams) its number; -1 if none does."""
    together: np.ndarray
    """(n-grams) texts that have both."""
    z: np.ndarray
    """(n-grams) how much more often than by chance."""


def associate(prompts: Words, grams: Postings, labels: Postings, most: float, least: int) -> Association:
    """For each n-gram of the prompts on at most a share `most` of them the label with the highest z, of equal ones the
    longest, that stands beside it in `least` texts. A label that is also in the prompt is none there: replies repeat
    what they are asked about.

    z = (c - e) / sqrt(e (1 - p) + 1), with c texts that have both, e those expected, p the label's share. The 1 lets
    more evidence count more where the label stands nowhere else.
    """
    longest = int(labels.lengths.max(initial=1))
    asked = [_in_text(hashes, prompts.owners[at]) for _, at, hashes in _ngrams(prompts, longest)]
    new = ~np.isin(_in_text(labels.hashes[labels.grams], labels.texts), np.concatenate(asked))
    order = np.argsort(labels.texts[new], kind="stable")
    starts = np.searchsorted(labels.texts[new][order], np.arange(len(prompts) + 1))
    lengths = np.where(labels.lengths, labels.lengths, np.iinfo(np.int64).max)
    chosen, frequencies = labels.grams[new][order], np.diff(labels.starts)
    texts = len(prompts)
    return Association(
        *_strongest(
            grams.starts, grams.texts, chosen, starts, frequencies, lengths, texts, most * texts, least
        )
    )  # fmt: skip


def _in_text(hashes: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Hashes of n-grams in texts."""
    return hashes ^ _mix(texts.astype(np.uint64) + np.uint64(1))


@njit(cache=True)
def _strongest(gram_starts, gram_texts, labels, label_starts, frequencies, lengths, texts, most, least):
    grams = len(gram_starts) - 1
    best, together, scores = np.full(grams, -1), np.zeros(grams, np.int64), np.zeros(grams)
    counts = np.zeros(len(frequencies), np.int64)
    for gram in range(grams):
        size = gram_starts[gram + 1] - gram_starts[gram]
        if size > most:
            continue
        for entry in range(gram_starts[gram], gram_starts[gram + 1]):
            text = gram_texts[entry]
            for at in range(label_starts[text], label_starts[text + 1]):
                counts[labels[at]] += 1
        for entry in range(gram_starts[gram], gram_starts[gram + 1]):
            text = gram_texts[entry]
            for at in range(label_starts[text], label_starts[text + 1]):
                label, count = labels[at], counts[labels[at]]
                counts[label] = 0  # each label is judged once
                if count < least:
                    continue
                share = frequencies[label] / texts
                z = (count - size * share) / np.sqrt(size * share * (1 - share) + 1)
                tie = abs(z - scores[gram]) < 1e-9
                if (tie and best[gram] >= 0 and lengths[label] > lengths[best[gram]]) or (
                    not tie and z > scores[gram]
                ):
                    best[gram], together[gram], scores[gram] = label, count, z
    return best, together, scores


def longest_first(z: np.ndarray, lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """The order of n-grams by z, and where that is equal by length."""
    return np.lexsort((-np.asarray(lengths), -np.round(z, 6)))
