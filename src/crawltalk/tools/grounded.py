"""Answers from a run's pages: search first, then answer from what was found, cite it, and decline where nothing was
found (retrieval-augmented generation, Lewis et al. 2020).

A citation quotes its page word for word. Where a model writes the answer, its words must stand in the passage; if they
do not, the quotation itself is the answer.
"""

from collections.abc import Callable, Sequence

import msgspec

from crawltalk.chat.messages import Message
from crawltalk.retrieval.passages import Passages, RetrievedPassage, content_words, sentences, stem, words_of

MIN_COVERAGE = 0.5
"""Coverage of the question by the best passage, below which nothing was found. Of questions about the pages less than
1 % have less, of questions about anything 98 % (EXPERIMENTS.md).
"""
MIN_SUPPORT = 0.6
"""The share of the words of an answer, those of 4 letters and more, that must stand in the passage or the question."""
_SENTENCE_ENDS = (".", "!", "。")
NOTHING_FOUND = "I found nothing about that in these pages."

Read = Callable[[Sequence[Message]], str]
"""Completes a conversation: the model that reads."""


class Citation(msgspec.Struct, frozen=True, kw_only=True):
    """A page that an answer rests on."""

    id: str
    """`Document.id`."""
    url: str
    title: str
    quote: str
    """`document.text[start:end]`."""
    start: int
    end: int


class GroundedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer with the pages that it comes from; without any where the assistant declines."""

    text: str
    citations: list[Citation]

    @property
    def declined(self) -> bool:
        return not self.citations


class GroundedAssistant:
    """Answers questions from passages. Without a model that reads, the answer is the sentence that fits best."""

    def __init__(
        self, passages: Passages, read: Read | None = None, *, min_coverage: float = MIN_COVERAGE
    ) -> None:
        self.passages, self.min_coverage = passages, min_coverage
        self._read = read

    def answer(self, question: str) -> GroundedAnswer:
        passage = self.find(question)
        if passage is None:
            return GroundedAnswer(text=NOTHING_FOUND, citations=[])
        reply = self._read(reading_messages(passage.title, passage.text, question)) if self._read else ""
        return self.conclude(question, passage, reply)

    def find(self, question: str) -> RetrievedPassage | None:
        """The passage to answer from; None if nothing was found."""
        found = self.passages.search(question, 1)
        return found[0] if found and found[0].coverage >= self.min_coverage else None

    def conclude(self, question: str, passage: RetrievedPassage, reply: str) -> GroundedAnswer:
        """The answer, after what a model replied to `reading_messages`: its first paragraph if the passage supports it
        (small models go on with what nobody asked), else the sentence that fits best.
        """
        text = reply.strip().partition("\n")[0]
        if text == NOTHING_FOUND:
            return GroundedAnswer(text=NOTHING_FOUND, citations=[])
        if text and is_supported(text, passage, question):
            start, end = best_sentence(self.passages, f"{question} {text}", passage.text)
        else:
            start, end = best_sentence(self.passages, question, passage.text)
            text = passage.text[start:end]
        citation = Citation(
            id=passage.id,
            url=passage.url,
            title=passage.title,
            quote=passage.text[start:end],
            start=passage.start + start,
            end=passage.start + end,
        )
        return GroundedAnswer(text=text, citations=[citation])


def best_sentence(passages: Passages, question: str, text: str) -> tuple[int, int]:
    """(start, end) of the sentence of a text that has most of the question's words, by inverse document frequency. Of
    equal ones the first that is a whole sentence and no heading, or else the first.
    """
    weights = passages.weights(content_words(question))

    def fit(span: tuple[int, int]) -> tuple[float, bool]:
        sentence = text[slice(*span)]
        known = {stem(word) for word in words_of(sentence)}
        covered = sum(weight for word, weight in weights.items() if stem(word) in known)
        return covered, sentence.endswith(_SENTENCE_ENDS)

    return max(sentences(text), key=fit)


def reading_messages(title: str, passage: str, question: str) -> list[Message]:
    """What a model is asked to answer from a passage. Fine-tuning on one's own pages uses the same form."""
    return [Message("user", f"From the page “{title}”:\n{passage}\n\nAnswer from this page. {question}")]


def is_supported(answer: str, passage: RetrievedPassage, question: str) -> bool:
    """Whether an answer is a whole sentence whose longer words stand in the passage or in the question, and all of
    whose numbers do.
    """
    return answer.endswith(_SENTENCE_ENDS) and stands_in(answer, f"{passage.title} {passage.text} {question}")


def stands_in(answer: str, text: str) -> bool:
    """Whether most of an answer's longer words stand in a text, and all of its numbers."""
    known = {stem(word) for word in words_of(text)}
    words = words_of(answer)
    said = [word for word in words if len(word) >= 4]
    return (
        all(word in known for word in words if word.isdigit())
        and bool(said)
        and sum(stem(word) in known for word in said) >= MIN_SUPPORT * len(said)
    )
