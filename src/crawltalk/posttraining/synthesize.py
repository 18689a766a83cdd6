"""Questions and answers from the documents, without people: each answer is a sentence of a document, and so stands in
it word for word; the question to it comes from a template, from a model in our own engine, or from an endpoint.

What makes a bad question is not used: `reject` says why, and the rows are kept in rejected.jsonl. That a question
must share its words with its answer and be specific is the check of round-trip filters (Alberti et al. 2019, Synthetic
QA Corpora Generation with Roundtrip Consistency) without the model; whether search finds
the page is left to be measured.
"""

import random
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import msgspec

from crawltalk import recipe
from crawltalk.chat.endpoint import Endpoint
from crawltalk.chat.messages import Conversation, Message
from crawltalk.core.documents import read_documents
from crawltalk.core.jsonl import read_jsonl, write_jsonl
from crawltalk.core.types import Document
from crawltalk.models import model_folder
from crawltalk.retrieval.passages import Passages, build_index, content_words, cut, sentences, stem, words_of
from crawltalk.run.stage import STATE, Job, Metrics
from crawltalk.tools.grounded import NOTHING_FOUND, reading_messages

BATCH = 32
"""Sentences that are asked about at once; partial work is kept after each batch."""
SENTENCES_A_DOCUMENT = 8
"""The most questions of one document."""
MIN_COVERED, RARE = 0.5, 0.01
"""A question is about its answer if the words that it shares with it, and with the title, have at least this share of
its inverse document frequencies, and one of them occurs in at most this share of the passages.
"""
MAX_TOKENS = 48

_LEANS = re.compile(
    r"(?:this|that|these|those|it|its|they|their|he|she|we|you|here|there|however|otherwise|also|but|and|or|so|if|see|"
    r"note|for example|in addition|the following|the above|as above|the latter|the former|changed in|new in|deprecated|"
    r"although|when|while|since|because|now|then|similar|optional|returns?|determines|each|any|all|some|most|many|one|"
    r"only|both|other|another|such|in|on|at|to|for|by|with|as|from)\b",
    re.IGNORECASE,
)
"""How sentences begin that mean little without those before them."""
_POINTS = re.compile(
    r"\b(?:this|these|following|above|below|sentence|text|passage|chapter|section)\b", re.IGNORECASE
)
_DEFINITION = re.compile(
    r"(?P<subject>(?:an? |the )?[\w.()`-]+(?: [\w.()`-]+){0,4}?) (?P<verb>is|are|was|were) (?:an? |the |used |called )",
    re.IGNORECASE,
)


class Synthesized(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A question, and where its answer stands; a row of questions.jsonl."""

    question: str
    answer: str
    """`document.text[start:end]`."""
    id: str
    """`Document.id`."""
    url: str
    title: str
    start: int
    end: int
    passage: str
    """The passage of the document that has the answer."""
    made_by: str
    """"template", or the model's name."""
    split: str
    """train or test; all questions of a document have the same."""


class Rejected(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A question that is not used; a row of rejected.jsonl."""

    question: str
    answer: str
    url: str
    reason: str


class Sentence(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence of a document that a question may be asked about."""

    document: Document
    start: int
    end: int

    @property
    def text(self) -> str:
        return self.document.text[self.start : self.end]

    @property
    def passage(self) -> str:
        """The passages from the one in which it begins to the one in which it ends."""
        around = [span for span in cut(self.document.text) if span[0] < self.end and span[1] > self.start]
        return self.document.text[around[0][0] : around[-1][1]]

    @property
    def title(self) -> str:
        return self.document.text.partition("\n")[0]


class Writer(Protocol):
    """Writes questions."""

    name: str

    def __call__(self, batch: Sequence[Sentence]) -> list[str]:
        """A question to each sentence; an empty one where there is none."""
        ...


def synthesize(job: Job[recipe.Synthesize]) -> Metrics:
    """Write questions.jsonl and rejected.jsonl."""
    config, state = job.config, job.out / STATE
    state.mkdir(exist_ok=True)
    writer = make_writer(config)
    index = state / "passages.sqlite"
    if not index.exists():
        build_index(index, read_documents(job.inputs["data"]), "")
    passages = Passages(index)
    held_out, candidates = _candidates(list(read_documents(job.inputs["data"])), config.test_share, job.seed)
    written = _Written(state / "written.jsonl")
    accepted: list[Synthesized] = []
    rejected: list[Rejected] = []
    seen: set[str] = set()
    for batch in _batches(candidates):
        if len(accepted) >= config.questions:
            break
        for sentence, question in zip(batch, written.next(writer, batch), strict=True):
            if not question or len(accepted) >= config.questions:
                continue
            reason = "asked before" if question in seen else reject(question, sentence, passages)
            if reason:
                rejected.append(
                    Rejected(
                        question=question, answer=sentence.text, url=sentence.document.url, reason=reason
                    )
                )
                continue
            seen.add(question)
            accepted.append(
                Synthesized(
                    question=question,
                    answer=sentence.text,
                    id=sentence.document.id,
                    url=sentence.document.url,
                    title=sentence.title,
                    start=sentence.start,
                    end=sentence.end,
                    passage=sentence.passage,
                    made_by=writer.name,
                    split="test" if sentence.document.id in held_out else "train",
                )
            )
        job.progress.update(len(accepted), config.questions, "questions")
    write_jsonl(job.out / "questions.jsonl", accepted)
    write_jsonl(job.out / "rejected.jsonl", rejected)
    return {"questions": len(accepted), "rejected": len(rejected), "made_by": writer.name}


def reading_conversations(questions: Sequence[Synthesized], seed: int) -> list[Conversation]:
    """Conversations in which the assistant reads a passage, as `GroundedAssistant` asks it to: the answer to a question
    of the split train, or, for every fourth one, that a passage of another page does not hold it.
    """
    rows = [row for row in questions if row.split == "train"]
    rng = random.Random(f"{seed} reading")
    conversations = []
    for number, row in enumerate(rows):
        others = [other for other in rng.sample(rows, min(8, len(rows))) if other.id != row.id]
        declined = number % 4 == 3 and bool(others)
        shown, reply = (others[0], NOTHING_FOUND) if declined else (row, row.answer)
        messages = [*reading_messages(shown.title, shown.passage, row.question), Message("assistant", reply)]
        conversations.append(Conversation(messages=messages, source="reading one's own pages"))
    return conversations


class _Written:
    """What was asked so far, kept after each batch: a stage that is interrupted asks nothing twice."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.batches = list(read_jsonl(path, list[str])) if path.exists() else []
        self._position = 0

    def next(self, writer: Writer, batch: Sequence[Sentence]) -> list[str]:
        if self._position == len(self.batches):
            self.batches.append(writer(batch))
            write_jsonl(self.path, self.batches)
        self._position += 1
        return self.batches[self._position - 1]


def _candidates(
    documents: list[Document], test_share: float, seed: int
) -> tuple[set[str], Iterator[Sentence]]:
    """(ids of the documents held out, sentences to ask about): one of each document in a random order, then a second
    one of each, and so on.
    """
    rng = random.Random(seed)
    rng.shuffle(documents)
    held_out = {document.id for document in documents[: round(test_share * len(documents))]}
    rng.shuffle(documents)
    choices = [(document, _drawn(document, rng)) for document in documents]
    return held_out, (
        Sentence(document=document, start=spans[turn][0], end=spans[turn][1])
        for turn in range(SENTENCES_A_DOCUMENT)
        for document, spans in choices
        if turn < len(spans)
    )


def _drawn(document: Document, rng: random.Random) -> list[tuple[int, int]]:
    """Some sentences of a document that can be understood alone, in a random order; never its title."""
    title = document.text.find("\n") + 1
    spans = [
        (start, end)
        for start, end in sentences(document.text)
        if start >= title and _stands_alone(document.text[start:end])
    ]
    return rng.sample(spans, min(SENTENCES_A_DOCUMENT, len(spans)))


def _stands_alone(sentence: str) -> bool:
    return (
        40 <= len(sentence) <= 300
        and sentence[-1] in ".!。"
        and not sentence[0].islower()
        and len(sentence.split()) >= 6
        and not _LEANS.match(sentence)
    )


def _batches(candidates: Iterator[Sentence]) -> Iterator[list[Sentence]]:
    batch: list[Sentence] = []
    for sentence in candidates:
        batch.append(sentence)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def reject(question: str, sentence: Sentence, passages: Passages) -> str:
    """Why a question is not used; empty if it is."""
    words = content_words(question)
    if not question.endswith("?") or "\n" in question or not 3 <= len(question.split()) <= 40:
        return "it is not one question of 3 to 40 words"
    if _POINTS.search(question):
        return "it points at its text"
    weights = passages.weights(words)
    known = {stem(word) for word in words_of(f"{sentence.title} {sentence.text}")}
    shared = [word for word in words if stem(word) in known]
    if sum(weights[word] for word in shared) < MIN_COVERED * sum(weights.values()):
        return "its words are not those of the answer"
    rarest = max((weights[word] for word in shared), default=0.0)
    if rarest < passages.weight_of_share(RARE):
        return "it is not specific"
    return ""


def make_writer(config: recipe.Synthesize) -> Writer:
    """Who writes the questions. Raises MissingInput if there is no such model."""
    if not config.model:
        return Templates()
    if "://" in config.model:
        return Remote(config.model, config.endpoint_model)
    return Local(config.model)


class Templates:
    """Asks what the subject of a definition is."""

    name = "template"

    def __call__(self, batch: Sequence[Sentence]) -> list[str]:
        return [self._question(sentence.text) for sentence in batch]

    def _question(self, sentence: str) -> str:
        match = _DEFINITION.match(sentence)
        if not match:
            return ""
        subject = re.sub(r"^(An?|The) ", lambda article: article[0].lower(), match["subject"])
        return f"What {match['verb'].lower()} {subject}?"


SHOTS = (
    (
        "Tides",
        "The gravity of the Moon raises the level of the oceans twice a day.",
        "What raises the level of the oceans twice a day?",
    ),
    (
        "printf(3)",
        "The flag 0 pads numbers with zeros instead of blanks.",
        "What does the flag 0 of printf do?",
    ),
    (
        "City library: opening hours",
        "Books can be returned at any time at the machine beside the main door.",
        "Where can books be returned when the city library is closed?",
    ),
)
"""Title, sentence and question: examples for a model."""


def messages_for(title: str, sentence: str) -> list[Message]:
    """What a model is asked, with SHOTS as earlier turns."""
    messages = []
    for shot_title, shot, question in SHOTS:
        messages += [Message("user", _request(shot_title, shot)), Message("assistant", question)]
    return [*messages, Message("user", _request(title, sentence))]


def _request(title: str, sentence: str) -> str:
    return (
        f"Page: {title}\nSentence: {sentence}\n\n"
        "Write the question that this sentence answers. Name its subject."
    )


class Local:
    """A model in our own engine, greedily."""

    def __init__(self, name: str) -> None:
        from crawltalk.engine import load_engine

        folder = model_folder(name)
        self.name = folder.name
        self._engine = load_engine(folder)

    def __call__(self, batch: Sequence[Sentence]) -> list[str]:
        from crawltalk.engine import Sampling

        prompts = [self._engine.chat_prompt(messages_for(row.title, row.text))[0] for row in batch]
        replies = self._engine.generate(prompts, Sampling(temperature=0.0, max_tokens=MAX_TOKENS))
        return [self._engine.tokenizer.decode(ids).strip() for ids in replies]


class Remote:
    """A model behind an OpenAI-compatible endpoint, asked several questions at once."""

    def __init__(self, url: str, model: str) -> None:
        self._endpoint = Endpoint(
            url, model, way_out="what it wrote so far is kept: the same command goes on from there"
        )
        self.name = self._endpoint.model

    def __call__(self, batch: Sequence[Sentence]) -> list[str]:
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(self._ask, batch))

    def _ask(self, sentence: Sentence) -> str:
        return self._endpoint.complete(messages_for(sentence.title, sentence.text), MAX_TOKENS)
