"""A tokenizer.json of another library, followed to the letter: added tokens, normalizers, split steps and merges of
pairs, each as the library `tokenizers` does it. What is not done here is refused by its name.

Our own vocabularies do not need it: they are cut by one pattern and merged by ranks (`tokenizer.bulk`), much
faster. Not here either: vocabularies of characters (SentencePiece, WordPiece).
"""

import heapq
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import regex

from crawltalk.core.errors import BadInput
from crawltalk.tokenizer import patterns

GUARD = "\ufdd0"
"""A character that is none. In the name of a control token it makes it a text; `encode` drops it."""
_CACHED = 1 << 17
"""Chunks whose ids are kept."""
_PUNCTUATION = r"[\p{P}!-/:-@\[-`{-~]"
Step = Callable[[str], Iterable[str]]
"""A piece of text to smaller ones."""

_BLANKS = "".join(
    blank for blank in map(chr, range(0x3001)) if blank.isspace() and not "\x1c" <= blank <= "\x1f"
)
"""Unicode's white space, which is what tokenizers strips; Python's `str.strip` takes four control characters more."""


class AddedToken(NamedTuple):
    """A token that is found in a text before anything else happens to it."""

    content: str
    id: int
    special: bool = False
    """Whether it is a control token, which `encode` leaves alone in texts."""
    normalized: bool = False
    """Whether it is looked for behind the normalizers."""
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False


class Rules:
    """Text to ids as a tokenizer.json says."""

    def __init__(
        self,
        data: Mapping[str, Any],
        vocab: Mapping[bytes, int],
        merges: Sequence[tuple[bytes, bytes]],
        added: Sequence[AddedToken],
        path: str | Path,
    ) -> None:
        """`data`: the content of `path`; `vocab` and `merges`: its own, in bytes. Raises BadInput for what is
        not done here.
        """
        self.data = data
        self.normalize = _normalizer(data.get("normalizer"), path)
        self.steps = _steps(data.get("pre_tokenizer"), path)
        self.begin = _begin(data.get("post_processor"), path)
        """Ids in front of every text."""
        self._early = _Finder([token for token in added if not token.normalized])
        self._late = _Finder(
            [token._replace(content=self.normalize(token.content)) for token in added if token.normalized]
        )
        self._merger = _Merger(data["model"], vocab, merges, path)

    def encode(self, text: str | bytes, control: bool = False) -> list[int]:
        """Ids of a text, without those in front of it. `control`: names of control tokens stand for them."""
        if isinstance(text, str):
            text = text.encode("utf-8", "surrogatepass")
        ids: list[int] = []
        for piece, token in self._early.find(text.decode("utf-8", "surrogateescape"), control):
            if token is not None:
                ids.append(token)
                continue
            normal = self.normalize(piece.replace(GUARD, "") if control else piece)
            for part, late in self._late.find(normal, control):
                ids += self._of_text(part) if late is None else [late]
        return ids

    def chunks(self, text: str) -> list[str]:
        """A text that holds no added tokens, cut into what is merged."""
        pieces = [text] if text else []
        for step in self.steps:
            pieces = [smaller for piece in pieces for smaller in step(piece) if smaller]
        return pieces

    def _of_text(self, text: str) -> list[int]:
        return [
            index
            for chunk in self.chunks(text)
            for index in self._merger.ids(chunk.encode("utf-8", "surrogateescape"))
        ]


class _Finder:
    """Added tokens in a text, the longest of those that begin at the same place."""

    def __init__(self, tokens: Iterable[AddedToken]) -> None:
        self.tokens = {token.content: token for token in tokens if token.content}
        names = sorted(self.tokens, key=len, reverse=True)
        self.pattern = regex.compile("|".join(map(regex.escape, names))) if names else None

    def find(self, text: str, control: bool) -> Iterator[tuple[str, int | None]]:
        """The pieces of a text: (text, None) or (what was found, id)."""
        done = 0
        for found in self.pattern.finditer(text) if self.pattern else ():
            token = self.tokens[found[0]]
            start, end = found.span()
            if token.special and not control:
                continue
            if token.single_word and (
                regex.search(r"\w$", text[:start]) or regex.match(r"\w", text[end : end + 1])
            ):
                continue
            if token.lstrip:
                start = max(done, len(text[:start].rstrip(_BLANKS)))
            if token.rstrip:
                end += len(text[end:]) - len(text[end:].lstrip(_BLANKS))
            if done < start:
                yield text[done:start], None
            yield found[0], token.id
            done = end
        if done < len(text):
            yield text[done:], None


class _Merger:
    """Byte pairs merged in the order of the list, each pair as it stands there (Sennrich et al. 2016)."""

    def __init__(
        self,
        model: Mapping[str, Any],
        vocab: Mapping[bytes, int],
        merges: Sequence[tuple[bytes, bytes]],
        path: str | Path,
    ) -> None:
        _refuse(model, ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"), path)
        self.pairs = {
            (vocab[left], vocab[right]): (rank, vocab[left + right])
            for rank, (left, right) in enumerate(merges)
        }
        self.bytes = [vocab.get(bytes([value])) for value in range(256)]
        self.unknown = None
        if (name := model.get("unk_token")) is not None:
            self.unknown = model["vocab"].get(name)
        self.fuse = bool(model.get("fuse_unk"))
        self.whole = vocab if model.get("ignore_merges") else {}
        self._cache: dict[bytes, list[int]] = {}

    def ids(self, chunk: bytes) -> list[int]:
        """Ids of a chunk. A byte without a token is left out, or is the unknown token if there is one."""
        known = self._cache.get(chunk)
        if known is None:
            if len(self._cache) >= _CACHED:
                self._cache.clear()
            known = self._cache[chunk] = self._merged(chunk)
        return known

    def _merged(self, chunk: bytes) -> list[int]:
        if chunk in self.whole:
            return [self.whole[chunk]]
        ids: list[int] = []
        for value in chunk:
            index = self.bytes[value]
            if index is None:
                index = self.unknown
                if index is None or (self.fuse and ids[-1:] == [index]):
                    continue
            ids.append(index)
        after, before = list(range(1, len(ids) + 1)), list(range(-1, len(ids)))
        heap: list[tuple[int, int, int]] = []
        for position in range(len(ids) - 1):
            self._push(heap, ids, position, position + 1)
        while heap:
            _, left, merged = heapq.heappop(heap)
            right = after[left]
            if ids[left] < 0 or right == len(ids):
                continue
            if self.pairs.get((ids[left], ids[right]), (0, -1))[1] != merged:
                continue
            ids[left], ids[right] = merged, -1
            after[left] = after[right]
            before[after[left]] = left
            if before[left] >= 0:
                self._push(heap, ids, before[left], left)
            if after[left] < len(ids):
                self._push(heap, ids, left, after[left])
        return [index for index in ids if index >= 0]

    def _push(self, heap: list[tuple[int, int, int]], ids: list[int], left: int, right: int) -> None:
        if found := self.pairs.get((ids[left], ids[right])):
            heapq.heappush(heap, (found[0], left, found[1]))


def _refuse(fields: Mapping[str, Any], names: Iterable[str], path: str | Path) -> None:
    """Raise BadInput for a field that is set."""
    for name in names:
        if fields.get(name):
            raise BadInput(f"{path} says {name} = {fields[name]!r}, which crawltalk does not do")


def _parts(step: Any, key: str, path: str | Path) -> list[dict[str, Any]]:
    """A step, or the steps of a sequence of them."""
    if step is None:
        return []
    if not isinstance(step, dict) or "type" not in step:
        raise BadInput(f"{path} is damaged: {step!r:.80} is no step of a tokenizer")
    if step["type"] != "Sequence":
        return [step]
    return [part for inner in step.get(key, ()) for part in _parts(inner, key, path)]


def _normalizer(step: Any, path: str | Path) -> Callable[[str], str]:
    functions = [_normal(part, path) for part in _parts(step, "normalizers", path)]

    def normalize(text: str) -> str:
        for function in functions:
            text = function(text)
        return text

    return normalize


def _normal(step: dict[str, Any], path: str | Path) -> Callable[[str], str]:
    kind = step["type"]
    match kind:
        case "NFC" | "NFD" | "NFKC" | "NFKD":
            return lambda text: unicodedata.normalize(kind, text)
        case "Lowercase":  # letter by letter: a final sigma is no other one
            return lambda text: "".join(map(str.lower, text))
        case "Strip":
            left, right = step.get("strip_left"), step.get("strip_right")
            return lambda text: _stripped(text, bool(left), bool(right))
        case "Prepend":
            return lambda text: text and step["prepend"] + text
        case "Replace":
            pattern, content = _regex(step["pattern"], path), step["content"]
            return lambda text: pattern.sub(lambda _: content, text)
    raise BadInput(f"{path} normalizes text before it is cut, by {kind}, which crawltalk does not do")


def _stripped(text: str, left: bool, right: bool) -> str:
    text = text.lstrip(_BLANKS) if left else text
    return text.rstrip(_BLANKS) if right else text


def _regex(pattern: Any, path: str | Path) -> regex.Pattern[str]:
    """A pattern of a file: a text, or a regular expression of Oniguruma's, as far as both read it alike."""
    if isinstance(pattern, dict) and isinstance(pattern.get("String"), str):
        return regex.compile(regex.escape(pattern["String"]))
    if not isinstance(pattern, dict) or not isinstance(pattern.get("Regex"), str):
        raise BadInput(f"{path} is damaged: {pattern!r:.80} is no pattern")
    if found := regex.search(r"&&|\\[hHRXOKGyY]|\(\?[~<]?[^:=!i>sm]", pattern["Regex"]):
        raise BadInput(
            f"{path} cuts text by {pattern['Regex']!r}; crawltalk does not know {found[0]!r} there"
        )
    try:
        return regex.compile(pattern["Regex"])
    except regex.error as error:
        raise BadInput(
            f"{path} cuts text by {pattern['Regex']!r}, which crawltalk cannot read: {error}"
        ) from None


def _steps(step: Any, path: str | Path) -> list[Step]:
    """The steps of a pre_tokenizer, whose last one must be ByteLevel."""
    parts = _parts(step, "pretokenizers", path)
    kinds = [part["type"] for part in parts]
    if kinds.count("ByteLevel") != 1 or kinds[-1] != "ByteLevel":
        raise BadInput(
            f"{path} splits text in a way that crawltalk does not know: {kinds}; it reads byte-level vocabularies, "
            "whose last step is ByteLevel"
        )
    steps: list[Step] = []
    for part in parts:
        match part["type"]:
            case "Split":
                steps.append(
                    _split(
                        _regex(part["pattern"], path),
                        part["behavior"],
                        path,
                        inverted=bool(part.get("invert")),
                    )
                )
            case "Digits":
                pattern = r"\p{N}" if part.get("individual_digits") else r"\p{N}+"
                steps.append(_split(regex.compile(pattern), "Isolated", path))
            case "Punctuation":
                steps.append(_split(regex.compile(_PUNCTUATION), part.get("behavior", "Isolated"), path))
            case "WhitespaceSplit":
                steps.append(_split(regex.compile(r"\s"), "Removed", path))
            case "ByteLevel":
                if part.get("add_prefix_space", True):
                    steps.append(lambda text: [text if text.startswith(" ") else " " + text])
                if part.get("use_regex", True):
                    steps.append(_split(regex.compile(patterns.GPT2), "Isolated", path))
            case kind:
                raise BadInput(f"{path} splits text by {kind}, which crawltalk does not do")
    return steps


def _split(pattern: regex.Pattern[str], behavior: Any, path: str | Path, *, inverted: bool = False) -> Step:
    """A step that cuts around what a pattern matches, or, `inverted`, around what it does not."""
    if behavior not in _JOINED:
        raise BadInput(f"{path} splits text with the behavior {behavior!r}, which crawltalk does not know")
    joined = _JOINED[behavior]

    def pieces(text: str) -> Iterator[tuple[str, bool]]:
        done = 0
        for found in pattern.finditer(text):
            if done < found.start():
                yield text[done : found.start()], inverted
            yield found[0], not inverted
            done = found.end()
        if done < len(text):
            yield text[done:], inverted

    return lambda text: joined(list(pieces(text)))


def _contiguous(pieces: list[tuple[str, bool]]) -> list[str]:
    return _glued(pieces, lambda last, this: last == this)


def _with_previous(pieces: list[tuple[str, bool]]) -> list[str]:
    return _glued(pieces, lambda last, this: this and not last)


def _with_next(pieces: list[tuple[str, bool]]) -> list[str]:
    return _glued(pieces, lambda last, this: last and not this)


def _glued(pieces: list[tuple[str, bool]], glue: Callable[[bool, bool], bool]) -> list[str]:
    """Neighbours put together where `glue` says so of whether either is a match."""
    texts: list[str] = []
    last: bool | None = None
    for text, matches in pieces:
        if last is not None and glue(last, matches):
            texts[-1] += text
        else:
            texts.append(text)
        last = matches
    return texts


_JOINED: dict[str, Callable[[list[tuple[str, bool]]], list[str]]] = {
    "Isolated": lambda pieces: [text for text, _ in pieces],
    "Removed": lambda pieces: [text for text, matches in pieces if not matches],
    "Contiguous": _contiguous,
    "MergedWithPrevious": _with_previous,
    "MergedWithNext": _with_next,
}


def _begin(step: Any, path: str | Path) -> tuple[int, ...]:
    """The ids that a post_processor puts in front of a text."""
    begin: tuple[int, ...] = ()
    for part in _parts(step, "processors", path):
        if part["type"] == "ByteLevel":  # of offsets only
            continue
        if part["type"] != "TemplateProcessing":
            raise BadInput(f"{path} finishes texts by {part['type']}, which crawltalk does not do")
        names = [piece.get("SpecialToken", {}).get("id") for piece in part["single"]]
        if names.count(None) != 1 or names[-1] is not None:
            raise BadInput(f"{path} puts tokens behind a text (post_processor), which crawltalk does not do")
        begin += tuple(
            index for name in names if name is not None for index in part["special_tokens"][name]["ids"]
        )
    return begin
