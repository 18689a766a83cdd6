"""A chapter of the report: what happened in one sentence, one figure, something to read, and the tables folded."""

from collections.abc import Sequence
from typing import NamedTuple

from crawltalk.report.html import command, text


class Chapter(NamedTuple):
    """All texts but `commands` and titles are HTML, in which what comes from outside is escaped."""

    sentence: str
    """What happened, in plain words and with this run's figures."""
    figure: str = ""
    """What shows it at a glance."""
    reading: str = ""
    """Texts of the model or of the crawl."""
    details: Sequence[tuple[str, str]] = ()
    """What stands folded: (title, HTML)."""
    commands: Sequence[str] = ()
    """What makes the figures, and what to try next."""


def render(title: str, chapter: Chapter, claims: str = "") -> str:
    """The chapter as a section, with what the lab says on its subject."""
    folded = "".join(
        f"<details><summary>{text(name)}</summary>{html}</details>" for name, html in chapter.details if html
    )
    commands = "".join(map(command, chapter.commands))
    return (
        f'<section id="{anchor(title)}"><h2>{text(title)}</h2><p class="lead">{chapter.sentence}</p>'
        f"{chapter.figure}{chapter.reading}{claims}{folded}{commands}</section>"
    )


def anchor(title: str) -> str:
    """The name by which a link finds the chapter."""
    return "".join(letter if letter.isalnum() else "-" for letter in title.lower())
