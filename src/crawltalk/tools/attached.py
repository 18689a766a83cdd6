"""Documents that a person attaches to a conversation: what of them a model reads, and what its answer rests on.

They are read whole where the context has room for them. Otherwise the passages that fit the question best are read, by
the same ranking as those of a run. Their text was written by anybody. It goes to the model as text in the turn of the
person who attached it, where no text can open or end a turn.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import msgspec

from crawltalk.chat.messages import Message, text_of
from crawltalk.core.errors import BadInput
from crawltalk.core.types import Document
from crawltalk.retrieval.passages import Passages, build_index, cut, sentences
from crawltalk.tools.grounded import NOTHING_FOUND, Citation, best_sentence, reading_messages, stands_in

MOST_PASSAGES = 60
"""Passages of the documents that are read, where there is room for so many."""
_GAP = "\n…\n"
"""Between passages that do not follow each other."""
_LONGEST_TOKEN = 40
"""Characters: a text that has more of them for each token that there is room for is not read whole."""

Span = tuple[int, int, int]
"""Number of the document, start and end in its text."""


class AttachedDocument(msgspec.Struct, frozen=True):
    """A text with the name of its file."""

    name: str
    text: str


class Reading(msgspec.Struct, frozen=True):
    """What a model reads of the documents."""

    spans: list[Span]
    """In order."""
    message: Message
    """The question behind them."""
    read: int
    """Characters of the documents that stand in the message."""
    characters: int
    """Characters of the documents."""


class Attachments:
    """The documents of a conversation."""

    def __init__(self, documents: Sequence[AttachedDocument], folder: Path) -> None:
        """`folder`: where their index may be written. Raises BadInput for a document without a text."""
        for document in documents:
            if not document.text.strip():
                raise BadInput(f"{document.name!r} is empty")
        self.documents = [AttachedDocument(" ".join(one.name.split()), one.text) for one in documents]
        build_index(folder / "attached.sqlite", map(_indexed, range(len(documents)), self.documents), "")
        self.passages = Passages(folder / "attached.sqlite")

    @property
    def nothing(self) -> list[Span]:
        """No part of any document: what is in front of a question is their names then."""
        return [(number, 0, 0) for number in range(len(self.documents))]

    def read(self, question: str, room: int, count: Callable[[str], int]) -> Reading:
        """What of the documents has room in `room` tokens, as `count` counts those of a text."""
        spans = self._whole(room, count) or self._best(question, room, count)
        return Reading(
            spans=spans,
            message=self.message(question, spans),
            read=sum(end - start for _, start, end in spans),
            characters=sum(len(document.text) for document in self.documents),
        )

    def message(self, question: str, spans: Sequence[Span]) -> Message:
        """The question behind these parts of the documents."""
        pages = [
            (self.documents[number].name, _GAP.join(self._text(span) for span in parts))
            for number, parts in groupby(spans, key=lambda span: span[0])
        ]
        if len(pages) == 1:
            return reading_messages(*pages[0], question)[0]
        read = "".join(f"From the page “{name}”:\n{text}\n\n" for name, text in pages)
        return Message("user", f"{read}Answer from these pages. {question}")

    def cite(self, question: str, reply: str, reading: Reading) -> tuple[list[Citation], bool]:
        """The sentence that fits question and reply best, if there is one, and whether the reply stands in what was
        read.
        """
        if reply.strip() == NOTHING_FOUND:
            return [], False
        supported = stands_in(reply, text_of(reading.message))
        if not supported and not self.passages.search(question, 1):
            return [], False
        texts = [self._text(span) for span in reading.spans]
        asked = f"{question} {reply}" if supported else question
        start, end = best_sentence(self.passages, asked, "\n".join(texts))
        which = 0
        while start > len(texts[which]):
            start, end = start - len(texts[which]) - 1, end - len(texts[which]) - 1
            which += 1
        number, offset, _ = reading.spans[which]
        citation = Citation(
            id=str(number),
            url="",
            title=self.documents[number].name,
            quote=texts[which][start:end],
            start=offset + start,
            end=offset + end,
        )
        return [citation], supported

    def _text(self, span: Span) -> str:
        number, start, end = span
        return self.documents[number].text[start:end]

    def _whole(self, room: int, count: Callable[[str], int]) -> list[Span]:
        """All of the documents; nothing if there is no room for that."""
        if sum(len(document.text) for document in self.documents) > _LONGEST_TOKEN * room:
            return []
        whole = [(number, 0, len(document.text)) for number, document in enumerate(self.documents)]
        return whole if sum(count(f"{self._text(span)}{_GAP}") for span in whole) <= room else []

    def _best(self, question: str, room: int, count: Callable[[str], int]) -> list[Span]:
        """The passages that fit the question best; if none does, those at the beginning. Where not even one has room,
        the part of it around the sentence that fits best.
        """
        chosen: list[Span] = []
        for span in self._ranked(question):
            size = count(f"{self._text(span)}{_GAP}")
            if size > room and chosen:
                break
            chosen.append(span if size <= room else self._part(question, span, room, count))
            room -= min(room, size)
        return _joined(sorted(chosen))

    def _ranked(self, question: str) -> Iterator[Span]:
        found = self.passages.search(question, MOST_PASSAGES)
        if found:
            for passage in found:
                number = int(passage.id)
                title = len(self.documents[number].name) + 1
                yield number, passage.start - title, passage.end - title
        else:
            for number, document in enumerate(self.documents):
                for start, end in cut(f"\n{document.text}"):
                    yield number, start - 1, end - 1

    def _part(self, question: str, span: Span, room: int, count: Callable[[str], int]) -> Span:
        """The sentence of a passage that fits best, and those behind and before it that there is room for; the first
        half of a sentence that is too long, or of that.
        """
        number, offset, _ = span
        text = self._text(span)
        parts = sentences(text)
        first = last = parts.index(best_sentence(self.passages, question, text))
        while True:
            wider = [(first, last + 1), (first - 1, last)]
            for one, other in wider:
                if one >= 0 and other < len(parts) and count(text[parts[one][0] : parts[other][1]]) <= room:
                    first, last = one, other
                    break
            else:
                break
        start, end = parts[first][0], parts[last][1]
        while count(text[start:end]) > room and end - start > 1:
            end = start + (end - start) // 2
        return number, offset + start, offset + end


def _indexed(number: int, document: AttachedDocument) -> Document:
    """The name stands in the first line, as titles do. The id is the number."""
    return Document(
        text=f"{document.name}\n{document.text}",
        id=str(number),
        url="",
        dump="",
        date="",
        file_path="",
        language="",
        language_score=0.0,
        token_count=0,
    )


def _joined(spans: Sequence[Span]) -> list[Span]:
    """Neighbours in one, with what stands between them: line breaks and spaces."""
    joined: list[Span] = []
    for number, start, end in spans:
        if joined and joined[-1][0] == number and start - joined[-1][2] <= 2:
            joined[-1] = (number, joined[-1][1], end)
        else:
            joined.append((number, start, end))
    return joined
