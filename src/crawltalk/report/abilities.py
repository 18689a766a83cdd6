"""Sections on what models can do side by side: weights against context, tokens to think, the jagged edge of ability."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from crawltalk import recipe
from crawltalk.core.statistics import NORMAL
from crawltalk.report.chapter import Chapter
from crawltalk.report.html import lines_figure, percent, table, text
from crawltalk.report.inputs import json_of
from crawltalk.run.stage import Job

Rows = list[dict[str, Any]]
"""Means of abilities.json, each with its `model`."""
CONDITIONS = {
    "closed_book": "from memory",
    "in_context": "the page in context",
    "first": "the page first of three",
    "middle": "the page in the middle",
    "last": "the page last of three",
    "searched": "after a search",
}
WAYS = {"direct": "at once", "steps": "step by step", "tools": "with functions"}
KINDS = {
    ("letters", "spell"): "spell a word",
    ("letters", "count"): "count a letter in a word",
    ("letters", "backwards"): "write a word backwards",
    ("dots", "to_9"): "count 1 to 9 dots",
    ("dots", "to_60"): "count 10 to 60 dots",
    ("decimals", "longer_is_smaller"): "9.11 or 9.9: the longer number is smaller",
    ("decimals", "longer_is_larger"): "9.91 or 9.1: the longer number is larger",
}
_ABSENT = "-"


def _models(job: Job[recipe.Report]) -> list[dict[str, Any]]:
    path = job.inputs["evals"] / "abilities.json"
    return json_of(path) if path.exists() else []


def _rows(models: Iterable[dict[str, Any]], tasks: Sequence[str]) -> Rows:
    return [
        {"group": {}, "model": model["model"], **row}
        for model in models
        for row in model["means"]
        if row["task"] in tasks
    ]


def _score(rows: Rows, where: Callable[[dict[str, Any]], bool]) -> float | str:
    """The mean over all items of the rows that fit."""
    fitting = [row for row in rows if where(row)]
    items = sum(row["n"] for row in fitting)
    return round(sum(row["score"] * row["n"] for row in fitting) / items, 3) if items else _ABSENT


def _items(rows: Rows) -> str:
    """How many problems a cell has, and how far chance may move it."""
    items = min(row["n"] for row in rows)
    return f"{items} problems or more in each cell: ± {text(NORMAL * 0.5 / items**0.5)} at most, at 95 %."


def _commands(job: Job[recipe.Report], tasks: str) -> list[str]:
    run = str(job.inputs["evals"].parent)
    source = f" --data {run}" if tasks == "context" else ""
    return [f"crawltalk evals {run}", f"crawltalk eval smollm2 --tasks {tasks}{source}"]


def _share(value: float | str) -> str:
    """A score for a sentence."""
    return percent(value) if isinstance(value, float) else "none"


def weights_and_context(job: Job[recipe.Report]) -> Chapter | None:
    """The same questions from memory, with pages to read, and after a search, by how often a page was read."""
    rows = [row for row in _rows(_models(job), ["context"]) if row["metric"] == "correct"]
    if not rows:
        return None
    repeats = list(dict.fromkeys(row["group"]["repeats"] for row in rows))
    names = list(dict.fromkeys(row["model"] for row in rows))

    def score(model: str, condition: str, times: str) -> float | str:
        group = {"condition": condition, "repeats": times}
        return _score(rows, lambda row: row["model"] == model and row["group"] == group)

    curves = ""
    for model in names:
        known = [times for times in repeats if times.isdigit()]
        series = [
            (
                CONDITIONS[condition],
                [float(times) for times in known],
                [
                    value if isinstance(value := score(model, condition, times), float) else 0.0
                    for times in known
                ],
            )
            for condition in ("closed_book", "in_context", "searched")
        ]
        curves += lines_figure(
            series,
            "times that a pass over the training shows the page",
            "share right",
            f"{model}: what is in the weights, and what is read from the context.",
        )
    figures = table(
        ("model", "what stands before the question", *repeats),
        [
            (model, about, *(score(model, condition, times) for times in repeats))
            for model in names
            for condition, about in CONDITIONS.items()
        ],
    )
    items, last, often, unread = min(row["n"] for row in rows), names[-1], repeats[-1], repeats[0]
    return Chapter(
        "A model knows a page from its weights, if it has read it often enough, or from its context, if it has learned "
        f"to read there. About the pages that it read most often, the model “{text(last)}” is right from memory in "
        f"{_share(score(last, 'closed_book', often))} of the cases; about pages outside of its training in "
        f"{_share(score(last, 'closed_book', unread))}, and with the page before the question in "
        f"{_share(score(last, 'in_context', unread))}.",
        figure=curves,
        details=[
            (
                "In figures",
                f"<p>Pages outside of the training are in column 0; fine-tuning asks about flagships, too. {items} "
                f"pages or more in each cell; one page changes it by {text(1 / items)}.</p>{figures}",
            )
        ],
        commands=_commands(job, "context"),
    )


def thinking(job: Job[recipe.Report]) -> Chapter | None:
    """Word problems at once, after so many tokens of thinking, and with a calculator; and what a token costs."""
    models = _models(job)
    rows = _rows(models, ["word_problems"])
    if not rows:
        return None
    names = list(dict.fromkeys(row["model"] for row in rows))
    budgets = list(dict.fromkeys(row["group"]["budget"] for row in rows if "budget" in row["group"]))

    def score(model: str, way: str, kind: str = "", budget: str = "") -> float | str:
        def fits(row: dict[str, Any]) -> bool:
            group = row["group"]
            return (
                (row["model"], group["way"]) == (model, way)
                and kind in ("", group["kind"])
                and budget in ("", group.get("budget"))
            )

        return _score(rows, fits)

    curve = lines_figure(
        [
            (
                model,
                [float(budget) for budget in budgets],
                [
                    value if isinstance(value := score(model, "steps", budget=budget), float) else 0.0
                    for budget in budgets
                ],
            )
            for model in names
        ],
        "tokens of thinking, at most",
        "share right",
        "Thinking is cut after so many tokens, and the answer is asked for.",
    )
    kinds = list(dict.fromkeys(row["group"]["kind"] for row in rows))
    most = budgets[-1] if budgets else ""
    answers = table(
        ("model", "additions or packs", "in one token", f"after {most} tokens at most", "with a calculator"),
        [
            (
                model,
                kind.replace("_", " "),
                score(model, "direct", kind),
                score(model, "steps", kind, most),
                score(model, "tools", kind),
            )
            for model in names
            for kind in kinds
        ],
    )
    costs = table(
        ("model", "parameters", "weights in", "FLOP of a token", "and for each token before it", "context"),
        [
            (
                model["model"],
                model["parameters"],
                model.get("precision", "float32"),
                f"{model['flops_per_token']:.3g}",
                f"{model['flops_per_position']:.3g}",
                model["context"],
            )
            for model in models
            if model["model"] in names
        ],
    )
    able = max(names, key=lambda name: _number(score(name, "steps", "", most)))
    solved = [_number(score(able, way, "", budget)) for way, budget in (("direct", ""), ("steps", most))]
    return Chapter(
        "Every token is one pass through the model: a fixed number of operations. An answer that comes at once has one "
        "pass to be found in; a model that writes steps down first has one for each token. "
        + (
            f"Of these word problems the model “{text(able)}” solves {percent(solved[0])} at once, and "
            f"{percent(solved[1])} after {most} tokens of thinking at most."
            if any(solved)
            else "These word problems are beyond the models here, at once and step by step."
        ),
        figure=curve if any(solved) else "",
        details=[
            (
                "In figures",
                "<p>The answers have one digit, so a guess is right in one case of nine. "
                f"{_items(rows)} {_ABSENT}: does not fit into the context.</p>{answers}",
            ),
            ("What a token costs", costs),
        ],
        commands=_commands(job, "word_problems"),
    )


def _number(value: float | str) -> float:
    return value if isinstance(value, float) else 0.0


def jagged(job: Job[recipe.Report]) -> Chapter | None:
    """Problems that are easy for people, with and without functions."""
    rows = [
        row
        for row in _rows(_models(job), list(dict.fromkeys(task for task, _ in KINDS)))
        if row["metric"] == "correct"
    ]
    if not rows:
        return None
    names = list(dict.fromkeys(row["model"] for row in rows))

    def score(model: str, way: str, task: str, kind: str) -> float | str:
        return _score(
            rows,
            lambda row: (
                (row["model"], row["task"]) == (model, task)
                and (row["group"]["way"], row["group"]["kind"]) == (way, kind)
            ),
        )

    figures = table(
        ("problem", *(f"{model}, {about}" for model in names for about in WAYS.values())),
        [
            (about, *(score(model, way, task, kind) for model in names for way in WAYS))
            for (task, kind), about in KINDS.items()
        ],
    )
    last = names[-1]
    ranked = sorted((_number(score(last, "direct", *kind)), about) for kind, about in KINDS.items())
    return Chapter(
        "A model that recites an encyclopedia may fail to count three letters: it reads tokens, not letters. "
        + (
            f"Of these problems, which are easy for people, the model “{text(last)}” does best at “{ranked[-1][1]}” "
            f"({percent(ranked[-1][0])} right) and worst at “{ranked[0][1]}” ({percent(ranked[0][0])})."
            if ranked[-1][0]
            else f"Of these problems, which are easy for people, the model “{text(last)}” solves none."
        ),
        figure=figures,
        reading="<p>Numbers are compared in both orders, so a model that always takes the first is right half of the "
        "time. With functions, the first reply has to be a call. "
        f"{_items(rows)} {_ABSENT}: does not fit into the context.</p>",
        commands=_commands(job, "letters,dots,decimals"),
    )
