"""The stage that asks the base model what it knows (Llama Team 2024, section 4.3.6: "know what you know").

Each page is a question, put as the document in which the answer is the next line. The base model answers it several
times, and rules judge the answers against the page. What it gets right is taught as an answer, what it gets wrong each
time as something that the assistant does not know. Pages kept for the test are asked as well, and never taught. A model
from elsewhere (`sft.base`) is asked as people ask it, for facts of the pages (`posttraining.facts`).
"""

import dataclasses
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import msgspec

from crawltalk import recipe
from crawltalk.chat.messages import Message
from crawltalk.chat.prompts import first_line, page_prompt
from crawltalk.core.documents import read_documents
from crawltalk.core.jsonl import read_jsonl, write_jsonl
from crawltalk.core.types import Placement, Role
from crawltalk.engine import Engine, Sampling, load_engine
from crawltalk.posttraining.facts import RELATION_OF, Fact, Seen, choose_facts, stated
from crawltalk.posttraining.judge import Judge, judge_error, make_judge
from crawltalk.posttraining.tuning import starting_model
from crawltalk.run.stage import STATE, Job, Metrics
from crawltalk.tasks import Corpus, Split, draw_corpus
from crawltalk.tasks.judging import Verdict, agreement
from crawltalk.tasks.recall import question_forms

Decision = Literal["answer", "decline", "none"]
TESTED = 100
"""Pages that were read a few times and are kept for the test, at most."""
BATCH = 64
"""Pages that are asked about between two files to resume from."""
LABELLED = 40
"""Pages of the labelled sample that the error of the judge is measured on."""
CACHE_BYTES = 2**27


class Question(msgspec.Struct, kw_only=True):
    """A page, what the base model answered about it, and what follows from that; one line of questions.jsonl."""

    id: str
    """The page's."""
    title: str
    answer: str
    """What the page says."""
    role: Role
    seen: Seen
    repeats: int
    """Times that the page occurs in one pass over the training data; of a model from elsewhere, other documents that
    mention it.
    """
    split: Split
    """Whether the page may be taught, or is kept for the test. Flagships are both: other questions test them."""
    prompt: str
    replies: list[str] = []
    verdicts: list[Verdict] = []
    said: str = ""
    """The most frequent reply."""
    agreement: float = 0.0
    """Its share of the replies."""
    decision: Decision = "none"
    """What fine-tuning teaches."""
    relation: str = ""
    """What is asked about the page (`posttraining.facts`); of a model from elsewhere only."""
    passage: str = ""
    """The beginning of the page; of a model from elsewhere only."""

    @property
    def correct(self) -> float:
        """The share of correct replies."""
        return self.verdicts.count("correct") / max(1, len(self.verdicts))


def factuality(job: Job[recipe.Factuality]) -> Metrics:
    """Write questions.jsonl."""
    placements = read_jsonl(job.inputs["tokens"] / "documents.jsonl", Placement)
    if job.config.base:
        facts = choose_facts(placements, read_documents(job.inputs["data"]), job.config.facts, job.seed)
        asked = list(map(about_fact, facts))
        # its samples are a measurement, and bfloat16 takes less than half of the time
        engine = load_engine(starting_model(job)[0], precision="bfloat16", cache_bytes=CACHE_BYTES)
    else:
        asked = list(choose(placements, job.config, job.seed))
        engine = load_engine(job.model("base"), cache_bytes=CACHE_BYTES)
    judge = make_judge(job.config)
    rows: list[Question] = []
    for start in range(0, len(asked), BATCH):
        path = job.out / STATE / f"questions-{start:06d}.jsonl"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            batch = answer(engine, asked[start : start + BATCH], job.config, job.seed, start)
            write_jsonl(
                path, [judged(row, judge, teach=job.config.teach and not row.relation) for row in batch]
            )
        rows += read_jsonl(path, Question)
        job.progress.update(len(rows), len(asked), "questions")
    rows = with_agreement(rows)
    write_jsonl(job.out / "questions.jsonl", rows)
    labelled = [(row.title, row.answer) for row in rows[:LABELLED]]
    return {**figures(rows), "judge_error": round(judge_error(judge, labelled), 4)}


def choose(placements: Iterable[Placement], config: recipe.Factuality, seed: int) -> Iterator[Question]:
    """The pages to ask about: those that fine-tuning would answer or decline, and those kept for the test."""
    placements = list(placements)
    rng = random.Random(seed)
    corpus = draw_corpus(placements, (), rng, declined=config.never, assistant="")
    most = max((page.repeats for page in placements), default=0)
    graded = [page for page in placements if page.role == "graded" and page.title and page.description]
    tail = rng.sample(list(corpus.tail), len(corpus.tail))
    tested = tail[: min(TESTED, len(tail) // 2)]
    groups: list[tuple[Seen, Split, Sequence[Placement]]] = [
        ("often", "train", corpus.flagships),
        ("often", "train", [page for page in graded if 2 * page.repeats > most]),
        ("rarely", "train", [page for page in graded if 2 * page.repeats <= most]),
        ("rarely", "train", tail[len(tested) :][: config.rarely]),
        ("never", "train", corpus.declined),
        ("rarely", "test", tested),
        ("never", "test", corpus.unseen),
    ]
    for seen, split, pages in groups:
        for page in pages:
            yield Question(
                id=page.id,
                title=page.title,
                answer=page.description,
                role=page.role,
                seen=seen,
                repeats=page.repeats,
                split=split,
                prompt=page_prompt(page.title),
            )


def about_fact(fact: Fact) -> Question:
    """The question about a fact."""
    return Question(
        id=fact.id,
        title=fact.title,
        answer=fact.answer,
        role=fact.page.role,
        seen=fact.seen,
        repeats=fact.mentions,
        split=fact.split,
        prompt=fact.question,
        relation=fact.relation.name,
        passage=fact.passage,
    )


def answer(
    engine: Engine, questions: Sequence[Question], config: recipe.Factuality, seed: int, first: int = 0
) -> list[Question]:
    """The questions with the replies of a base model, or of one that chats if they are about facts. `first`: the number
    of the first of them, which the draws depend on.
    """
    sampling = Sampling(temperature=config.temperature, max_tokens=config.max_tokens, stop=("\n",), seed=seed)
    samples = config.samples
    requests = [
        engine.request(
            _prompt(engine, question),
            sampling,
            row=samples * (first + index) + sample,
        )
        for index, question in enumerate(questions)
        for sample in range(samples)
    ]
    ids: dict[int, list[int]] = {request.id: [] for request in requests}
    for output in engine.run(requests):
        ids[output.request.id] += [token.id for token in output.tokens]
    replies = [first_line(engine.tokenizer.decode(reply)) for reply in ids.values()]
    return [
        msgspec.structs.replace(question, replies=replies[index * samples : (index + 1) * samples])
        for index, question in enumerate(questions)
    ]


def _prompt(engine: Engine, question: Question) -> list[int]:
    if question.relation:
        return engine.chat_prompt([Message("user", question.prompt)])[0]
    return engine.truncate([*engine.renderer.begin, *engine.tokenizer.encode(question.prompt)])


def forms_of(question: Question, split: Split) -> tuple[str, ...]:
    """The forms of the question in a chat: those that are trained on, and those for the test."""
    if not question.relation:
        return question_forms(question.answer, split)
    relation = RELATION_OF[question.relation]
    return relation.questions if split == "train" else relation.test_questions


def judged(question: Question, judge: Judge, *, teach: bool) -> Question:
    """The question with verdicts and the decision.

    A page that is right at least once is answered, and one that is wrong each time is declined; with `teach`
    flagships are answered in any case, and an invented name never, whatever luck says.
    """
    verdicts = [judge(question.title, question.answer, reply) for reply in question.replies]
    said, share = agreement(question.replies)
    known = "correct" in verdicts or (teach and question.role == "flagship")
    known &= not (question.relation and question.seen == "never")
    decision: Decision = "answer" if known else "decline"
    return msgspec.structs.replace(
        question,
        verdicts=verdicts,
        said=said,
        agreement=share,
        decision=decision if question.split == "train" else "none",
    )


def with_agreement(rows: Sequence[Question]) -> list[Question]:
    """The same; of facts, which are answered by sentences, agreement is that of the answers which these state. A reply
    that states none agrees with no other.
    """
    answers: dict[str, set[str]] = {}
    for row in rows:
        answers.setdefault(row.relation, set()).add(row.answer)

    def compared(row: Question) -> Question:
        if not row.relation:
            return row
        relation = RELATION_OF[row.relation]
        said = [stated(relation, row.title, reply, answers[row.relation]) for reply in row.replies]
        counts = Counter(answer for answer in said if answer)
        most, count = counts.most_common(1)[0] if counts else ("", 1)
        reply = row.replies[said.index(most)]
        return msgspec.structs.replace(row, said=reply, agreement=count / len(row.replies))

    return list(map(compared, rows))


def decided(corpus: Corpus, placements: Iterable[Placement], questions: Iterable[Question]) -> Corpus:
    """The corpus in which what the base model knows is answered, and what it does not know is declined."""
    pages = {page.id: page for page in placements}
    decisions = {row.id: row.decision for row in questions if row.split == "train"}

    def those(decision: Decision) -> list[Placement]:
        return [pages[id_] for id_, chosen in decisions.items() if chosen == decision]

    tail = [page for page in corpus.tail if page.id not in decisions]
    return dataclasses.replace(corpus, flagships=those("answer"), declined=those("decline"), tail=tail)


def figures(questions: Sequence[Question]) -> Metrics:
    """How many were asked, and the share of correct replies by how often their pages were read."""
    shares = {}
    for seen in ("often", "rarely", "never"):
        rows = [row.correct for row in questions if row.seen == seen]
        if rows:
            shares[f"correct_{seen}"] = round(sum(rows) / len(rows), 4)
    decisions = Counter(row.decision for row in questions)
    return {
        "questions": len(questions),
        "answered": decisions["answer"],
        "declined": decisions["decline"],
        **shares,
    }
