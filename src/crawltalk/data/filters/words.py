"""Words and sentences, as spaCy's rules for English cut them: a text is cut at white space; then marks come
off both ends of each piece; then what is left is cut at hyphens, slashes and the like. FineWeb's filters count
these words.

Pieces recur, so that each is cut once per process and looked up after that; and what the filters count of a
text's words stands in arrays.
"""

import string
from array import array
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import regex
from numba import njit

_SINGLE = frozenset(",:;!?¿؟¡(){}[]<>_#*&。？！，、；：～·।،۔؛٪'\"”“`‘´’‚„»«「」『』（）〔〕【】《》〈〉")
"""Marks that come off either end, one by one."""
_MARKS = rf"\.{{2,}}|…|[{regex.escape(''.join(sorted(_SINGLE)))}]|\p{{So}}"
_UNITS = (
    r"km²?³?|m²?³?|dm|cm|mm|nm|ha|kg|mg|g|t|lb|oz|m/s|km/h|mph|kPa|Pa|mbar|mb|MB|kb|KB|gb|GB|tb|TB|T|G|M|K|%"
)
_PREFIX = regex.compile(rf"§|%|=|—|–|\+(?!\d)|{_MARKS}|\p{{Sc}}")
_SUFFIX = regex.compile(
    rf"(?:{_MARKS}|['’][sS]|—|–|(?<=\d)\+|(?<=°[FfCcKk])\.|(?<=\d)(?:\p{{Sc}}|{_UNITS})"
    r"|(?<=[\d\p{Ll}%²+\-)\]}>'\"“”’»…])\.|(?<=\p{Lu}{2})\.)$"
)
_INFIX = regex.compile(
    r"\.{2,}|…|\p{So}|(?<=\d)[+\-*^](?=[\d-])|(?<=[\p{Ll}'\"”’])\.(?=[\p{Lu}'\"“‘])|(?<=\p{L}),(?=\p{L})"
    r"|(?<=[\p{L}\d])(?:---?|——|[-–—~])(?=\p{L})|(?<=[\p{L}\d])[:<>=/](?=\p{L})"
)
_HOST = r"(?:[^\W_](?:[\w-]{0,62}[^\W_])?\.)+\p{Ll}{2,63}"
_URL = regex.compile(rf"(?:[\w+.-]{{2,}}://)?(?:\S+@)?{_HOST}(?::\d{{2,5}})?(?:[/?#]\S*)?")
"""Anything that ends like a host: example.org, README.txt, a.b@c.org, https://x.org/y."""
_CONTRACTION = regex.compile(r"(?i)(.+)(n['’]t|['’](?:re|ve|ll|d|m))")
_SPECIAL = frozenset(
    """
    Dr. St. Mr. Mrs. Ms. Prof. Co. Inc. Jr. Sr. Ltd. Corp. Bros. Gen. Gov. Sen. Rep. Rev. Mt. Messrs. vs. v.s. e.g. i.e.
    a.m. p.m. and/or Jan. Feb. Mar. Apr. Jun. Jul. Aug. Sep. Sept. Oct. Nov. Dec. Ph.D. No. C++ :) :( ;)
    :-) :-( ;-) :D :P <3 ): (:
    """.split()  # noqa: SIM905 - a list of words is read as words
)
_LETTERS = frozenset(string.ascii_letters + string.digits)
_ENDS_SENTENCE = regex.compile(r"\p{Sentence_Terminal}")


SYMBOL, LETTER, END, PART = 1, 2, 4, 8
"""Kinds of words, as bits: neither letter nor digit in it; some letter in it; a mark that ends sentences, in any
script; one character of a script without blanks, which is a part of a word only.
"""
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}ー]"
_PART = regex.compile(rf"{_UNSPACED}\p{{M}}*")
_PARTS = regex.compile(rf"{_UNSPACED}\p{{M}}*|(?:(?!{_UNSPACED})\S)+")
_MOST_PIECES = 1 << 18


class Words(NamedTuple):
    """The words and marks of a text, in order, as arrays of shape (words,)."""

    hashes: np.ndarray
    """Python's, uint64: they differ from process to process, and equal words have equal ones."""
    lengths: np.ndarray
    """Characters, int32."""
    kinds: np.ndarray
    """`SYMBOL`, `LETTER`, `END` and `PART`, int8."""


class _Vocabulary(dict[str, int]):
    """Word -> its number; what is counted of it stands in the arrays."""

    def __init__(self) -> None:
        super().__init__()
        self.hashes, self.lengths, self.kinds = array("q"), array("i"), array("b")

    def __missing__(self, word: str) -> int:
        self.hashes.append(hash(word))
        self.lengths.append(len(word))
        self.kinds.append(_kind(word))
        self[word] = number = len(self)
        return number


class _Pieces(dict[str, int]):
    """Piece -> its number, cut when it is first looked up. The words of piece n are
    `numbers[ends[n] : ends[n + 1]]`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.vocabulary, self.numbers, self.ends = _Vocabulary(), array("i"), array("q", [0])

    def __missing__(self, piece: str) -> int:
        self.numbers.extend(map(self.vocabulary.__getitem__, cut(piece)))
        self.ends.append(len(self.numbers))
        self[piece] = number = len(self)
        return number


_pieces = _Pieces()


@lru_cache(maxsize=4)  # the filters get the same text one after the other
def words_of(text: str, parts: bool = False) -> Words:
    """The words and marks of a text; with `parts` every character of a script without blanks for itself (Chinese,
    Japanese, Thai, and Korean, whose blanks stand between phrases).
    """
    global _pieces  # noqa: PLW0603 - the pieces of this process
    if len(_pieces) > _MOST_PIECES:
        _pieces = _Pieces()
    found = _PARTS.findall(text) if parts else text.split()
    chosen = np.fromiter(map(_pieces.__getitem__, found), np.int64, len(found))
    numbers = _gather(chosen, np.frombuffer(_pieces.ends, np.int64), np.frombuffer(_pieces.numbers, np.int32))
    words = _pieces.vocabulary
    return Words(
        np.frombuffer(words.hashes, np.uint64)[numbers],
        np.frombuffer(words.lengths, np.int32)[numbers],
        np.frombuffer(words.kinds, np.int8)[numbers],
    )


@njit(cache=True)
def _gather(pieces, ends, numbers):
    """The words of all pieces, in order."""
    count = 0
    for piece in pieces:
        count += ends[piece + 1] - ends[piece]
    found = np.empty(count, np.int64)
    row = 0
    for piece in pieces:
        for position in range(ends[piece], ends[piece + 1]):
            found[row] = numbers[position]
            row += 1
    return found


def count_sentences(text: str) -> int:
    """One for the beginning, and one for every word behind a mark that ends a sentence."""
    return _count_sentences(words_of(text).kinds)


@njit(cache=True)
def _count_sentences(kinds):
    count, ended = min(1, len(kinds)), False
    for kind in kinds:
        if kind & END:
            ended = True
        elif ended and not kind & SYMBOL:
            count, ended = count + 1, False
    return count


def ends_sentence(line: str) -> bool:
    """Whether the last character is one that ends sentences, in any script (Unicode's Sentence_Terminal)."""
    return _ENDS_SENTENCE.match(line[-1:]) is not None


def _kind(word: str) -> int:
    if word.isalpha():
        return LETTER + PART * (not word.isascii() and _PART.fullmatch(word) is not None)
    letter, symbol = any(map(str.isalpha, word)), not any(map(str.isalnum, word))
    part = letter and not word.isascii() and _PART.fullmatch(word) is not None
    return SYMBOL * symbol + LETTER * letter + END * (len(word) == 1 and ends_sentence(word)) + PART * part


def cut(piece: str) -> tuple[str, ...]:
    """The words and marks of a piece of text without white space."""
    if piece.isalpha():
        return _contracted(piece)
    stem, mark = piece[:-1], piece[-1]
    plain = mark in ",;:!?" or (mark == "." and len(stem) > 1 and stem[-1].islower())
    if (
        plain and stem.isascii() and stem.isalpha() and piece not in _SPECIAL
    ):  # the most frequent case, decided quickly
        return (*_contracted(stem), mark)
    if len(piece) > 1000:  # not a word; the rules would examine each end a thousand times
        return (piece,)
    before: list[str] = []
    after: list[str] = []
    while piece and not _is_whole(piece):
        if piece[0] in _SINGLE:
            before.append(piece[0])
            piece = piece[1:]
        elif found := _PREFIX.match(piece) if piece[0] not in _LETTERS else None:
            before.append(found[0])
            piece = piece[found.end() :]
        elif piece[-1] in _SINGLE:
            after.append(piece[-1])
            piece = piece[:-1]
        elif found := _SUFFIX.search(piece, _last(piece)) if _may_end(piece) else None:
            after.append(found[0])
            piece = piece[: found.start()]
        else:
            break
    if (
        piece
        and not piece.isalnum()
        and not _is_whole(piece)
        and not ("." in piece and _URL.fullmatch(piece))
    ):
        position = 0
        for found in _INFIX.finditer(piece):
            before += [*_contracted(piece[position : found.start()]), found[0]]
            position = found.end()
        piece = piece[position:]
    words = (*before, *_contracted(piece), *reversed(after))
    return _with_faces(words) if ")" in words and ":" in words else words


def _with_faces(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words, with a mouth and eyes side by side made one face: "):", wherever it stands."""
    joined: list[str] = []
    for word in words:
        if word == ":" and joined and joined[-1] == ")":
            joined[-1] = "):"
        else:
            joined.append(word)
    return tuple(joined)


def _last(piece: str) -> int:
    """The first position where an ending may begin, so that the rules need not try all: endings are at most four
    characters, or dots.
    """
    return max(0, len(piece.rstrip(".")) - 4)


def _may_end(piece: str) -> bool:
    """Whether something may come off the end, judged by the last characters: the rules themselves try every
    position.
    """
    last = piece[-1]
    if last not in _LETTERS:
        return True
    return not last.isdigit() and (piece[-2:-1] in "'’" or any(map(str.isdigit, piece)))


def _is_whole(piece: str) -> bool:
    """Abbreviations, initials and faces keep their marks."""
    return piece in _SPECIAL or (
        len(piece) == 2 and piece[1] == "." and piece[0].isalpha() and piece[0].isascii()
    )


def _contracted(word: str) -> tuple[str, ...]:
    """don't -> do n't; im -> i m, as spaCy's exceptions have it."""
    if found := _CONTRACTION.fullmatch(word) if "'" in word or "’" in word else None:
        return (found[1], found[2])
    if word in ("im", "Im"):
        return (word[0], "m")
    if word in ("cannot", "Cannot"):
        return (word[:3], "not")
    return (word,) if word else ()
