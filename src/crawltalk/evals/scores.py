"""Rows of samples.jsonl and scores.json."""

from collections.abc import Mapping, Sequence

import msgspec

from crawltalk.core.statistics import share_stderr
from crawltalk.core.types import Problem
from crawltalk.tasks.scoring import Scorer


class ScoredReply(msgspec.Struct, kw_only=True):
    """One problem, what a model replied, and the score of that; one line of samples.jsonl."""

    task: str
    """The kind of problem."""
    prompt: str
    answer: str
    reply: str
    score: float


class Score(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One entry of scores.json."""

    score: float
    n: int
    stderr: float | None = None
    about: str = ""


def score_reply(problem: Problem, reply: str, scorer: Scorer) -> ScoredReply:
    """The reply with its problem and its score."""
    return ScoredReply(
        task=problem.task,
        prompt=problem.prompt,
        answer=problem.answer,
        reply=reply,
        score=scorer(problem, reply),
    )


def scores_by_kind(replies: Sequence[ScoredReply], about: Mapping[str, str]) -> dict[str, Score]:
    """The mean score of each kind of problem that occurs, in the order of `about`."""
    values: dict[str, list[float]] = {kind: [] for kind in about}
    for row in replies:
        values[row.task].append(row.score)
    return {kind: mean_score(values[kind], about[kind]) for kind in about if values[kind]}


def mean_score(values: Sequence[float], about: str) -> Score:
    """The mean of at least one score, with its standard error."""
    mean = sum(values) / len(values)
    stderr = share_stderr(mean, len(values))
    return Score(score=round(mean, 4), n=len(values), stderr=round(stderr, 4), about=about)
