"""Answers from the run's pages: is the right page cited, and is a question about anything else declined?"""

from pathlib import Path

import msgspec

from crawltalk.core.documents import read_documents
from crawltalk.core.jsonl import read_jsonl, write_jsonl
from crawltalk.evals.scores import Score, mean_score
from crawltalk.posttraining.synthesize import Synthesized
from crawltalk.retrieval.passages import Passages, build_index
from crawltalk.run.stage import STATE, Job
from crawltalk.tools.grounded import GroundedAssistant

ELSEWHERE = Path(__file__).with_name("elsewhere.txt")
"""Questions of general knowledge, which pages about one subject rarely answer."""
QUESTIONS = 200
"""Questions about the pages, at most."""


class GroundedReply(msgspec.Struct, kw_only=True):
    """A row of grounded.jsonl."""

    question: str
    url: str
    """The page that the question was made from; empty for a question from elsewhere."""
    reply: str
    cited: list[str]
    """URLs; none where the assistant declined."""


def passages_of(job: Job) -> Passages:
    """The passages of the run's documents, indexed once for all evaluations."""
    state = job.out / STATE
    state.mkdir(exist_ok=True)
    index = state / "passages.sqlite"
    if not index.exists():
        build_index(index, read_documents(job.inputs["data"]), "")
    return Passages(index)


def grounded_scores(job: Job) -> dict[str, Score]:
    """Write grounded.jsonl and score it; nothing if the run has no questions about its pages.

    The questions are those of documents that no training used. The reply is a sentence of the page, without a model
    that reads: cited pages and declined questions do not depend on one.
    """
    if "synthesize" not in job.inputs:
        return {}
    assistant = GroundedAssistant(passages_of(job))
    rows = read_jsonl(job.inputs["synthesize"] / "questions.jsonl", Synthesized)
    asked = [(row.question, row.url) for row in rows if row.split == "test"][:QUESTIONS]
    asked += [(question, "") for question in ELSEWHERE.read_text("utf-8").splitlines()]
    replies = []
    for number, (question, url) in enumerate(asked):
        answer = assistant.answer(question)
        cited = [citation.url for citation in answer.citations]
        replies.append(GroundedReply(question=question, url=url, reply=answer.text, cited=cited))
        job.progress.update(number + 1, len(asked), "questions about the pages")
    write_jsonl(job.out / "grounded.jsonl", replies)
    own = [float(row.url in row.cited) for row in replies if row.url]
    elsewhere = [float(not row.cited) for row in replies if not row.url]
    scores = {"elsewhere_declined": mean_score(elsewhere, "questions of general knowledge, declined")}
    if own:
        scores["cited"] = mean_score(
            own, "questions about pages kept out of training: the right page is cited"
        )
    return scores
