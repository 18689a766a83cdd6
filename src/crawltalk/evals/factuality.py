"""What the assistant knows, what it declines and what it makes up, against the base model; and the same questions with
a page that search finds.

Counted as SimpleQA counts (Wei et al. 2024): correct, declined, incorrect. Questions are in forms that were never
trained on. Pages that were never read are those that no stage has seen. If an assistant from elsewhere was asked, the
base model is what it was before, and pages that were never read are those of invented names.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from crawltalk.chat.messages import Message
from crawltalk.core.files import write_atomically
from crawltalk.core.jsonl import read_jsonl
from crawltalk.core.types import Document
from crawltalk.engine import Engine, Sampling
from crawltalk.evals.scores import Score, mean_score
from crawltalk.posttraining.facts import Seen
from crawltalk.posttraining.factuality import Question, forms_of
from crawltalk.retrieval.passages import Passages, RetrievedPassage, build_index
from crawltalk.run.stage import STATE
from crawltalk.tasks.judging import Verdict, judge
from crawltalk.tasks.reading import choices, passage_of, with_passage
from crawltalk.tasks.scoring import normalize

BINS = 5
"""Groups of the reliability curve, by agreement."""
LOOKED_AT = 20
"""Passages among which one of a page that the question names is looked for."""
SEARCHED = 20_000
"""Documents that are searched: the pages asked about, and so many others at most."""
KNOWN = 0.5
"""From this share of right replies on the base model knew an answer."""
SEEN: tuple[Seen, ...] = ("often", "rarely", "never")


class Counts(msgspec.Struct, kw_only=True):
    """Shares of the replies to so many questions."""

    questions: int
    correct: float
    declined: float
    incorrect: float

    @classmethod
    def of(cls, verdicts: Sequence[Verdict], questions: int) -> "Counts":
        count, total = Counter(verdicts), max(1, len(verdicts))
        return cls(
            questions=questions,
            **{name: round(count[name] / total, 4) for name in ("correct", "declined", "incorrect")},
        )


class Group(msgspec.Struct, kw_only=True):
    """Pages that were read about as often: what both models reply."""

    seen: Seen
    base: Counts
    """Over all samples."""
    assistant: Counts
    """Greedily."""


class Bin(msgspec.Struct, kw_only=True):
    """Questions whose samples agree about as much; whether the most frequent reply is right."""

    agreement: float
    """Mean share of the most frequent reply."""
    correct: float
    questions: int


class Answered(msgspec.Struct, kw_only=True):
    """How often the assistant answers, and how often it is wrong then."""

    coverage: float
    risk: float


class Point(msgspec.Struct, kw_only=True):
    """If the base model answered only where its samples agree so much."""

    agreement: float
    coverage: float
    """Share of the questions that are answered."""
    risk: float
    """Share of these that are answered wrongly."""


class Factuality(msgspec.Struct, kw_only=True):
    """factuality.json."""

    groups: list[Group]
    reliability: list[Bin]
    risk: list[Point]
    assistant: Answered
    searched: dict[str, Counts]
    """Pages that were never read, with a passage that search finds: `quoted`, the likeliest sentence of it; `free`, in
    the assistant's own words; `without`: the page is not among those searched, so that the right reply declines.
    """
    found: float
    """Share of these questions for which search finds the right page."""
    chance: float
    """What a random one of the sentences of these passages would score: short passages leave little to choose."""


class Reply(msgspec.Struct, kw_only=True):
    """One line of factuality.jsonl."""

    seen: Seen
    way: str
    """`closed`, without a passage; or as in `Factuality.searched`."""
    prompt: str
    answer: str
    reply: str
    verdict: Verdict


def factuality(
    assistant: Engine, asked: Path, documents: Iterable[Document], out: Path, max_tokens: int, problems: int
) -> dict[str, Score]:
    """Ask the assistant what the base model was asked (questions.jsonl in the folder `asked`). Writes factuality.json
    and factuality.jsonl.
    """
    rows = list(read_jsonl(asked / "questions.jsonl", Question))
    tested = [row for seen in SEEN for row in _tested(rows, seen)[:problems]]
    prompts = [question_of(row, index) for index, row in enumerate(tested)]
    replies = [
        _reply(row, "closed", prompt, reply)
        for row, prompt, reply in zip(tested, prompts, ask(assistant, prompts, max_tokens), strict=True)
    ]
    state = out / STATE
    state.mkdir(exist_ok=True)
    build_index(state / "factuality.sqlite", _searchable(documents, rows), "")
    passages = Passages(state / "factuality.sqlite")
    searched: list[Reply] = []
    chances: list[float] = []
    unseen = [(row, prompt) for row, prompt in zip(tested, prompts, strict=True) if row.seen == "never"]
    pages = [find_page(passages, prompt) for _, prompt in unseen]
    others = [find_page(passages, prompt, without=row.id) for row, prompt in unseen]
    for way, found in (("free", pages), ("quoted", pages), ("without", others)):
        shown = [passage_of(f"{page.title}\n{page.text}") if page else "" for page in found]
        if way == "quoted":
            chances = [_chance(row, passage) for passage, (row, _) in zip(shown, unseen, strict=True)]
        texts = [
            with_passage(passage, prompt) if passage else prompt
            for passage, (_, prompt) in zip(shown, unseen, strict=True)
        ]
        said = ask(assistant, texts, max_tokens)
        if way != "free":
            said = [
                likeliest(assistant, text, choices(passage)) if passage else reply
                for text, passage, reply in zip(texts, shown, said, strict=True)
            ]
        searched += [
            _reply(row, way, text, reply) for (row, _), text, reply in zip(unseen, texts, said, strict=True)
        ]
    found_right = sum(
        page is not None and page.id == row.id for page, (row, _) in zip(pages, unseen, strict=True)
    )
    result = Factuality(
        groups=_groups(tested, replies),
        reliability=reliability(rows),
        risk=risk_and_coverage(rows),
        assistant=_answered(replies),
        searched={
            way: Counts.of([row.verdict for row in searched if row.way == way], len(unseen))
            for way in ("quoted", "free", "without")
        },
        chance=round(sum(chances) / max(1, len(unseen)), 4),
        found=round(found_right / max(1, len(unseen)), 4),
    )
    write_atomically(out / "factuality.json", msgspec.json.format(msgspec.json.encode(result)))
    lines = b"".join(msgspec.json.encode(row) + b"\n" for row in (*replies, *searched))
    write_atomically(out / "factuality.jsonl", lines)
    return dict(_scores(tested, replies, searched))


def ask(assistant: Engine, prompts: Sequence[str], max_tokens: int) -> list[str]:
    """The assistant's replies, greedily."""
    ids = [assistant.chat_prompt([Message("user", prompt)])[0] for prompt in prompts]
    replies = assistant.generate(ids, Sampling(temperature=0.0, max_tokens=max_tokens))
    return [assistant.tokenizer.decode(reply) for reply in replies]


def likeliest(assistant: Engine, prompt: str, replies: Sequence[str]) -> str:
    """The reply that the assistant gives the largest probability, as a whole."""
    ids = assistant.chat_prompt([Message("user", prompt)])[0]
    format = assistant.renderer.format
    end = [assistant.tokenizer.special_tokens[format.end]] if format is not None else []

    def log_probability(reply: str) -> float:
        tokens = [*assistant.tokenizer.encode(reply), *end]
        return sum(math.log(max(p, 1e-30)) for p in assistant.probabilities(ids, tokens))

    return max(replies, key=log_probability)


def find_page(passages: Passages, question: str, *, without: str = "") -> RetrievedPassage | None:
    """The first passage of the page with the longest title that stands in the question: a page says at its beginning
    what it is about. None if the question names no page: a small model takes any page that it is given for the right
    one. `without`: the id of a page that is passed over.
    """
    words = f" {normalize(question)} "
    found = [
        passage
        for passage in passages.search(question, LOOKED_AT)
        if passage.id != without and (title := normalize(passage.title)) and f" {title} " in words
    ]
    return max(found, key=lambda passage: (len(passage.title), -passage.start), default=None)


def question_of(row: Question, index: int) -> str:
    """A question about the page in one of the forms that are never trained on, in turn."""
    forms = forms_of(row, "test")
    return forms[index % len(forms)].format(row.title)


def reliability(rows: Iterable[Question]) -> list[Bin]:
    """Does agreement among the samples predict being right? Questions by the share of the most frequent reply."""
    bins: dict[int, list[Question]] = {}
    for row in rows:
        bins.setdefault(min(BINS - 1, int(row.agreement * BINS)), []).append(row)
    return [
        Bin(
            agreement=round(sum(row.agreement for row in group) / len(group), 4),
            correct=round(sum(map(_right, group)) / len(group), 4),
            questions=len(group),
        )
        for _, group in sorted(bins.items())
    ]


def risk_and_coverage(rows: Sequence[Question]) -> list[Point]:
    """For each level of agreement, from the highest: how many questions reach it, and how many of these are wrong
    (El-Yaniv and Wiener 2010).
    """
    points = []
    for level in sorted({row.agreement for row in rows}, reverse=True):
        answered = [row for row in rows if row.agreement >= level]
        wrong = len(answered) - sum(map(_right, answered))
        coverage = len(answered) / len(rows)
        points.append(
            Point(
                agreement=round(level, 4), coverage=round(coverage, 4), risk=round(wrong / len(answered), 4)
            )
        )
    return points


def _chance(row: Question, passage: str) -> float:
    replies = choices(passage) if passage else ()
    return sum(judge(row.answer, reply) == "correct" for reply in replies) / max(1, len(replies))


def _right(row: Question) -> bool:
    return judge(row.answer, row.said) == "correct"


def _tested(rows: Iterable[Question], seen: Seen) -> list[Question]:
    """Pages for the test; of those read often all, since fine-tuning asks about them in other forms. The relations of
    facts come in turn.
    """
    tested = [row for row in rows if row.seen == seen and (row.split == "test" or seen == "often")]
    count: Counter[str] = Counter()
    turns = []
    for row in tested:
        turns.append(count[row.relation])
        count[row.relation] += 1
    return [row for _, row in sorted(zip(turns, tested, strict=True), key=lambda pair: pair[0])]


def _reply(row: Question, way: str, prompt: str, reply: str) -> Reply:
    return Reply(
        seen=row.seen,
        way=way,
        prompt=prompt,
        answer=row.answer,
        reply=reply,
        verdict=judge(row.answer, reply),
    )


def _groups(rows: Sequence[Question], replies: Sequence[Reply]) -> list[Group]:
    groups = []
    for seen in SEEN:
        pairs = [(row, reply) for row, reply in zip(rows, replies, strict=True) if row.seen == seen]
        if pairs:
            sampled = [verdict for row, _ in pairs for verdict in row.verdicts]
            base = Counts.of(sampled, len(pairs))
            groups.append(
                Group(
                    seen=seen,
                    base=base,
                    assistant=Counts.of([reply.verdict for _, reply in pairs], len(pairs)),
                )
            )
    return groups


def _answered(replies: Sequence[Reply]) -> Answered:
    answered = [reply for reply in replies if reply.verdict != "declined"]
    wrong = sum(reply.verdict == "incorrect" for reply in answered)
    return Answered(
        coverage=round(len(answered) / max(1, len(replies)), 4), risk=round(wrong / max(1, len(answered)), 4)
    )


def _searchable(documents: Iterable[Document], rows: Sequence[Question]) -> Iterator[Document]:
    """The pages that were asked about, those of invented names among them, and the first others."""
    asked, others, last = {row.id for row in rows}, 0, None
    for last in documents:
        others += last.id not in asked
        if last.id in asked or others <= SEARCHED:
            yield last
    for row in rows:
        if last is not None and row.relation and row.seen == "never":
            yield msgspec.structs.replace(last, id=row.id, url="", text=row.passage)


def _scores(
    rows: Sequence[Question], replies: Sequence[Reply], searched: Sequence[Reply]
) -> Iterator[tuple[str, Score]]:
    """What enters scores.json."""
    never = [float(row.verdict == "incorrect") for row in replies if row.seen == "never"]
    if never:
        yield (
            "invented",
            mean_score(never, "titles that no stage has seen, answered wrongly; lower is better"),
        )
    kept = [
        float(reply.verdict == "correct")
        for row, reply in zip(rows, replies, strict=True)
        if row.correct >= KNOWN
    ]
    if kept:
        yield "known_kept", mean_score(kept, "of what the base model knew, what the assistant still knows")
    untaught = [
        float(reply.verdict == "correct")
        for row, reply in zip(rows, replies, strict=True)
        if row.relation and row.split == "test" and row.correct >= KNOWN
    ]
    if untaught:
        yield "known_kept_untaught", mean_score(untaught, "of these, what fine-tuning never asked about")
    quoted = [float(row.verdict == "correct") for row in searched if row.way == "quoted"]
    if quoted:
        yield "searched", mean_score(quoted, "titles that no stage has seen, with a page that search finds")
