"""Words and sentences, as spaCy's rules for English cut them: a text is cut at white space; then marks come off both ends
of each piece; then what is left is cut at hyphens, slashes and the like. FineWeb's filters count these words.

Pieces recur, so that each is cut once per process and looked up after that.
"""

import string
from functools import lru_cache
from itertools import chain

import regex

_MARKS = r"\.{2,}|…|[,:;!?¿؟¡(){}\[\]<>_#*&。？！，、；：～·।،۔؛٪]|['\"”“`‘´’‚„»«「」『』（）〔〕【】《》〈〉]|\p{So}"
_UNITS = r"km²?³?|m²?³?|dm|cm|mm|nm|ha|kg|mg|g|t|lb|oz|m/s|km/h|mph|kPa|Pa|mbar|mb|MB|kb|KB|gb|GB|tb|TB|T|G|M|K|%"
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
    a.m. p.m. and/or Jan. Feb. Mar. Apr. Jun. Jul. Aug. Sep. Sept. Oct. Nov. Dec. Ph.D. No. C++ :) :( ;) :-) :-( ;-) :D :P <3 ): (:
    """.split()  # noqa: SIM905 - a list of words is read as words
)
_LETTERS = frozenset(string.ascii_letters + string.digits)
_ENDS_SENTENCE = regex.compile(r"\p{Sentence_Terminal}")


@lru_cache(maxsize=4)
def split_words(text: str) -> tuple[str, ...]:
    """Words and marks, in order."""
    return tuple(chain.from_iterable(map(_cut, text.split())))


def count_sentences(text: str) -> int:
    """One for the beginning, and one for every word behind a mark that ends a sentence."""
    words = list(chain.from_iterable(map(_cut, text.split())))
    count, ended = min(1, len(words)), False
    for word in words:
        if len(word) == 1 and _ENDS_SENTENCE.match(word):
            ended = True
        elif ended and not is_symbol(word):
            count, ended = count + 1, False
    return count


def ends_sentence(line: str) -> bool:
    """Whether the last character is one that ends sentences, in any script (Unicode's Sentence_Terminal)."""
    return _ENDS_SENTENCE.match(line[-1:]) is not None


@lru_cache(maxsize=1 << 18)
def is_symbol(word: str) -> bool:
    """Whether a word holds neither letter nor digit."""
    return not any(map(str.isalnum, word))


@lru_cache(maxsize=1 << 18)
def _cut(piece: str) -> tuple[str, ...]:
    if piece.isalpha():
        return _contracted(piece)
    stem, mark = piece[:-1], piece[-1]
    plain = mark in ",;:!?" or (mark == "." and len(stem) > 1 and stem[-1].islower())
    if plain and stem.isascii() and stem.isalpha() and piece not in _SPECIAL:  # the most frequent case, told quickly
        return (*_contracted(stem), mark)
    if len(piece) > 1000:  # no word; the rules would look at each end a thousand times
        return (piece,)
    before: list[str] = []
    after: list[str] = []
    while piece and not _is_whole(piece):
        if found := _PREFIX.match(piece) if piece[0] not in _LETTERS else None:
            before.append(found[0])
            piece = piece[found.end() :]
        elif found := _SUFFIX.search(piece, _last(piece)) if _may_end(piece) else None:
            after.append(found[0])
            piece = piece[: found.start()]
        else:
            break
    if piece and not piece.isalnum() and not _is_whole(piece) and not ("." in piece and _URL.fullmatch(piece)):
        place = 0
        for found in _INFIX.finditer(piece):
            before += [*_contracted(piece[place : found.start()]), found[0]]
            place = found.end()
        piece = piece[place:]
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
    """Where the earliest end may begin: ends are at most four characters, or dots. The rules would try every place."""
    return max(0, len(piece.rstrip(".")) - 4)


def _may_end(piece: str) -> bool:
    """Whether something may come off the end: told from the last characters, since the rules themselves try every place."""
    last = piece[-1]
    if last not in _LETTERS:
        return True
    return not last.isdigit() and (piece[-2:-1] in "'’" or any(map(str.isdigit, piece)))


def _is_whole(piece: str) -> bool:
    """Abbreviations, initials and faces keep their marks."""
    return piece in _SPECIAL or (len(piece) == 2 and piece[1] == "." and piece[0].isalpha() and piece[0].isascii())


def _contracted(word: str) -> tuple[str, ...]:
    """don't -> do n't; im -> i m, as spaCy's exceptions have it."""
    if found := _CONTRACTION.fullmatch(word) if "'" in word or "’" in word else None:
        return (found[1], found[2])
    if word in ("im", "Im"):
        return (word[0], "m")
    if word in ("cannot", "Cannot"):
        return (word[:3], "not")
    return (word,) if word else ()
