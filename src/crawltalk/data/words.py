"""Words and sentences, as spaCy's rules for English cut them: a text is cut at white space; then marks come off both ends
of each piece; then what is left is cut at hyphens, slashes and the like. FineWeb's filters count these words.

Pieces recur, so that each is cut once per process and looked up after that.
"""

from functools import lru_cache

import regex

_MARKS = r"\.{2,}|…|[,:;!?¿؟¡(){}\[\]<>_#*&。？！，、；：～·।،۔؛٪]|['\"”“`‘´’‚„»«「」『』（）〔〕【】《》〈〉]|\p{So}"
_UNITS = r"km²?³?|m²|m³|dm|cm|mm|nm|ha|kg|mg|g|t|lb|oz|m/s|km/h|mph|kPa|Pa|mbar|mb|MB|kb|KB|gb|GB|tb|TB|T|G|M|K|%"
_PREFIX = regex.compile(rf"§|%|=|—|–|\+(?!\d)|{_MARKS}|\p{{Sc}}")
_SUFFIX = regex.compile(
    rf"(?:{_MARKS}|['’][sS]|—|–|(?<=\d)\+|(?<=°[FfCcKk])\.|(?<=\d)(?:\p{{Sc}}|{_UNITS})"
    r"|(?<=[\d\p{Ll}%²+\-)\]}>'\"“”’»…])\.|(?<=\p{Lu}{2})\.)$"
)
_INFIX = regex.compile(
    r"\.{2,}|…|\p{So}|(?<=\d)[+\-*^](?=[\d-])|(?<=[\p{Ll}'\"”’])\.(?=[\p{Lu}'\"“‘])|(?<=\p{L}),(?=\p{L})"
    r"|(?<=[\p{L}\d])(?:---?|——|[-–—~])(?=\p{L})|(?<=[\p{L}\d])[:<>=/](?=\p{L})"
)
_URL = regex.compile(r"(?:https?://|www\.)[^\s/]+\.[^\s]+|[\w.+-]+@[\w-]+(?:\.[\w-]+)+", regex.I)
_CONTRACTION = regex.compile(r"(?i)(.+)(n['’]t|['’](?:re|ve|ll|d|m))")
_SPECIAL = frozenset(
    """
    Dr. St. Mr. Mrs. Ms. Prof. Co. Inc. Jr. Sr. Ltd. Corp. Bros. Gen. Gov. Sen. Rep. Rev. Mt. Messrs. vs. v.s. e.g. i.e.
    a.m. p.m. Jan. Feb. Mar. Apr. Jun. Jul. Aug. Sep. Sept. Oct. Nov. Dec. Ph.D. No. C++ :) :( ;) :-) :-( ;-) :D :P <3 ): (:
    """.split()  # noqa: SIM905 - a list of words is read as words
)
_ENDS_SENTENCE = regex.compile(r"\p{Sentence_Terminal}")


@lru_cache(maxsize=4)
def split_words(text: str) -> tuple[str, ...]:
    """Words and marks, in order."""
    return tuple(word for piece in text.split() for word in _cut(piece))


def count_sentences(text: str) -> int:
    """One for the beginning, and one for every word behind a mark that ends a sentence."""
    words = [word for piece in text.split() for word in _cut(piece)]
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
    if len(piece) > 1000:  # no word; the rules would look at each end a thousand times
        return (piece,)
    before: list[str] = []
    after: list[str] = []
    while piece and not _is_whole(piece):
        if found := _PREFIX.match(piece):
            before.append(found[0])
            piece = piece[found.end() :]
        elif found := _SUFFIX.search(piece):
            after.append(found[0])
            piece = piece[: found.start()]
        else:
            break
    if piece and not _is_whole(piece) and not _URL.fullmatch(piece):
        place = 0
        for found in _INFIX.finditer(piece):
            before += [*_contracted(piece[place : found.start()]), found[0]]
            place = found.end()
        piece = piece[place:]
    return (*before, *_contracted(piece), *reversed(after))


def _is_whole(piece: str) -> bool:
    """Abbreviations, initials and faces keep their marks."""
    return piece in _SPECIAL or (len(piece) == 2 and piece[1] == "." and piece[0].isalpha() and piece[0].isascii())


def _contracted(word: str) -> tuple[str, ...]:
    """don't -> do n't; im -> i m, as spaCy's exceptions have it."""
    if found := _CONTRACTION.fullmatch(word) if "'" in word or "’" in word else None:
        return (found[1], found[2])
    if word in ("im", "Im"):
        return (word[0], "m")
    return (word,) if word else ()
