"""A small corpus for tasks: pages in every part, a document of twelve words, and the texts of pages never read."""

import random

from crawltalk.core.types import Document, Placement
from crawltalk.tasks import Corpus, draw_corpus

WORDS = ["abc", "bcd", "cde", "def", "efg", "fgh", "ghi", "hij", "ijk", "jkl", "klm", "lmn"]


def placements(*, sentences: bool = False) -> list[Placement]:
    """Pages described by what they are about, or by a sentence that they say."""
    roles = ["flagship"] * 5 + ["heldout"] * 20 + ["train"] * 30 + ["outside"] * 50
    return [
        Placement(
            id=str(number),
            url=f"https://site.example/{number}",
            title=f"Title {number}",
            description=f"This is what page {number} says." if sentences else f"thing of number {number}",
            topic="Things",
            role=role,
            repeats=1,
        )
        for number, role in enumerate(roles)
    ]


def documents() -> list[Document]:
    unread = [page for page in placements() if page.role in ("heldout", "outside")]
    texts = {page.id: f"{page.title}\n{page.description}\nMore of it." for page in unread}
    return [
        Document(
            text=text,
            id=id_,
            dump="",
            url="",
            date="",
            file_path="",
            language="en",
            language_score=1.0,
            token_count=1,
        )
        for id_, text in [("0", " ".join(WORDS)), *texts.items()]
    ]


def small_corpus(seed: int = 3, declined: int = 25, *, sentences: bool = False) -> Corpus:
    rng = random.Random(seed)
    pages = placements(sentences=sentences)
    return draw_corpus(pages, documents(), rng, declined=declined, assistant="Crawly", readings=10)
