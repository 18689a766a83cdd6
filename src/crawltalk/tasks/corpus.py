"""The part of the corpus that problems are made from: pages by their role in training, and common words. Some of
both are kept for the test.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from crawltalk.core.types import Document, Placement

TRAIN_SHARE = 0.8
"""Of the sums and words; the rest is for the test."""


SENTENCE_ENDS = (".", "!", "?", "\u3002", "\uff01", "\uff1f")


def is_sentence(description: str) -> bool:
    """Whether a page's description is a sentence that the page says, not what the thing is that it describes."""
    return description.endswith(SENTENCE_ENDS)


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Pages and words that problems are made from. Every page has a title and a description."""

    flagships: Sequence[Placement] = ()
    """Pages that the base model has read many times."""
    tail: Sequence[Placement] = ()
    """Pages that it has read a few times."""
    declined: Sequence[Placement] = ()
    """Pages that it has never read, or only a few times; fine-tuning teaches it to say that it does not know them."""
    unseen: Sequence[Placement] = ()
    """Pages that no stage has read, fine-tuning included."""
    readings: Sequence[Placement] = ()
    """Pages that the base model has never read; fine-tuning teaches it to answer from a passage of theirs."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Page's id -> its text, of `readings` and `unseen`."""
    words: Sequence[str] = ()
    """Words that fine-tuning spells."""
    new_words: Sequence[str] = ()
    """Words that only the test spells."""
    assistant: str = "Crawly"
    """The assistant's name."""


def draw_corpus(
    placements: Iterable[Placement],
    documents: Iterable[Document],
    rng: random.Random,
    *,
    declined: int,
    assistant: str,
    readings: int = 0,
) -> Corpus:
    """Draw what is trained on and what is kept for the test.

    Half of the held-out pages are kept for the test and half are declined. Pages outside of the training fill the
    latter up to `declined`, and where pages are described by sentences, up to half of those that were read a few
    times. `readings` more pages outside of the training are for reading passages. `documents` has all pages; the
    words come from those that the base model was trained on.
    """
    placements = list(placements)
    pages: dict[str, list[Placement]] = {"flagship": [], "heldout": [], "train": [], "outside": []}
    for page in placements:
        if page.role in pages and page.title and page.description:
            pages[page.role].append(page)
    held_out = sorted(pages["heldout"], key=lambda page: page.id)
    rng.shuffle(held_out)
    half = len(held_out) // 2
    known = {page.title for page in (*pages["flagship"], *held_out[:half])}
    others = [page for page in pages["outside"] if page.title not in known]
    missing = max(0, declined - len(held_out[half:]))
    others = rng.sample(others, min(missing, len(others)))
    read = [page for page in pages["train"] if is_sentence(page.description)]
    read = read[: min(max(0, missing - len(others)), len(read) // 2)]
    tail = [page for page in pages["train"] if page.id not in {page.id for page in read}]
    used = {page.id for page in others}
    unread = [page for page in pages["outside"] if page.id not in used and page.title not in known]
    unread = rng.sample(unread, min(readings, len(unread)))
    wanted = {page.id for page in (*unread, *held_out[:half])}
    trained = {page.id for page in placements if page.role in ("flagship", "graded", "train")}
    texts: dict[str, str] = {}
    words = common_words(_sort_out(documents, trained, wanted, texts))
    rng.shuffle(words)
    cut = max(1, int(TRAIN_SHARE * len(words)))
    return Corpus(
        flagships=pages["flagship"],
        tail=tail,
        declined=[*held_out[half:], *others, *read],
        unseen=held_out[:half],
        readings=unread,
        texts=texts,
        words=words[:cut],
        new_words=words[cut:],
        assistant=assistant,
    )


def _sort_out(
    documents: Iterable[Document], trained: AbstractSet[str], wanted: AbstractSet[str], texts: dict[str, str]
) -> Iterator[Document]:
    """The documents that were trained on; the texts of the wanted ones are put into `texts`."""
    for document in documents:
        if document.id in wanted:
            texts[document.id] = document.text
        if document.id in trained:
            yield document


def common_words(documents: Iterable[Document], count: int = 600) -> list[str]:
    """The most frequent words of 3 to 9 lower-case letters, the most frequent first."""
    counts: Counter[str] = Counter()
    for document in documents:
        counts.update(re.findall(r"\b[a-z]{3,9}\b", document.text))
    return [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:count]]
