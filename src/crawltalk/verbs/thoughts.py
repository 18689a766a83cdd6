"""What a model thinks before it answers, on a terminal."""

from collections.abc import Iterator
from typing import Literal

from crawltalk.tasks.scoring import THINK, THINK_END

Kind = Literal["thought", "said"]


class ThoughtReader:
    """Tells the thought at the beginning of a reply from what is said behind it, while the reply is written."""

    def __init__(self) -> None:
        self._text = ""
        self._kind: Kind | None = None  # not known yet
        self._begins = False

    def read(self, piece: str, *, final: bool = False) -> Iterator[tuple[Kind, str]]:
        """What a piece of the reply adds, without the marks and the space around them. What may be the beginning of a
        mark is kept back until the next piece, or the last.
        """
        self._text += piece
        if self._kind is None:
            begun = self._text.lstrip()
            if THINK.startswith(begun) and begun != THINK and not final:
                return
            self._kind = "said"
            if begun.startswith(THINK):
                self._go_to("thought", begun.removeprefix(THINK))
        if self._kind == "thought":
            thought, mark, said = self._text.partition(THINK_END)
            kept = 0 if mark or final else _unfinished(thought)
            yield from self._add(thought.rstrip() if mark else thought[: len(thought) - kept])
            self._text = thought[len(thought) - kept :]
            if mark:
                self._go_to("said", said)
        if self._kind == "said":
            yield from self._add(self._text)
            self._text = ""

    def _go_to(self, kind: Kind, text: str) -> None:
        self._kind, self._text, self._begins = kind, text, True

    def _add(self, text: str) -> Iterator[tuple[Kind, str]]:
        if self._begins:
            text = text.lstrip()
        if text and self._kind:
            self._begins = False
            yield self._kind, text


def _unfinished(text: str) -> int:
    """How many characters at the end of a thought may belong to its end: a part of the mark, and the white space before
    it.
    """
    sizes = range(len(THINK_END) - 1, 0, -1)
    part = next((size for size in sizes if text.endswith(THINK_END[:size])), 0)
    return len(text) - len(text[: len(text) - part].rstrip())
