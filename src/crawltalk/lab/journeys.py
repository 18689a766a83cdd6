"""Whole runs that several claims read: each is built once for a seed, beside the experiments, and kept."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from crawltalk.core.jsonl import read_jsonl
from crawltalk.engine import load_engine
from crawltalk.evals.assistant import greedy_replies
from crawltalk.evals.factuality import Counts, question_of
from crawltalk.lab.experiment import Trial
from crawltalk.models import model_of_run
from crawltalk.pipeline import stages
from crawltalk.posttraining.factuality import Question
from crawltalk.recipe.layers import load_recipe
from crawltalk.run.execute import build
from crawltalk.run.folder import RunFolder
from crawltalk.tasks.judging import judge

PRESET, FOLDER = "small", "journeys"
"""The recipe, and where the runs stand among the results of the experiments."""
MODEL = "The run is the default recipe, `small`: 4.5 M parameters, a million tokens of encyclopedia pages. "
"""For an experiment's method."""


def journey(
    trial: Trial,
    name: str = "small",
    settings: Mapping[str, str] | None = None,
    *,
    until: str = "evals",
    lender: RunFolder | None = None,
) -> RunFolder:
    """The run `name` of the trial's seed: the default recipe with these settings, built up to the stage `until` where
    it is not yet. Stages that are the same are borrowed from `lender`.
    """
    flags = {"seed": str(trial.seed), "machine.workers": str(trial.machine.workers or 1), **(settings or {})}
    recipe = load_recipe(PRESET, flags=flags)
    steps = stages(recipe)
    names = [stage.name for stage in steps]
    run = RunFolder(trial.out.parents[1] / FOLDER / f"{name}-{trial.seed}")
    if lender is not None:
        run.borrow(lender, steps, recipe)
    build(run, steps, names[: names.index(until) + 1], recipe, lambda event: _report(trial, event))
    return run


def _report(trial: Trial, event: dict[str, Any]) -> None:
    if event["event"] == "progress":
        trial.progress.update(event["done"], event["total"], f"{event['unit']} of {event['stage']}")


def results(run: RunFolder, name: str) -> Any:
    """What evaluation wrote into a JSON or JSONL file."""
    text = (run.folder("evals") / name).read_text(encoding="utf-8")
    return list(map(json.loads, text.splitlines())) if name.endswith("l") else json.loads(text)


def asked_about(run: RunFolder, seen: str, source: RunFolder) -> dict[str, float]:
    """What a run's assistant makes of the test questions that were drawn in `source`, about pages that were read often,
    rarely or never: shares of correct, declined and incorrect.
    """
    asked = read_jsonl(source.folder("factuality") / "questions.jsonl", Question)
    rows = [row for row in asked if (row.seen, row.split) == (seen, "test")]
    questions = [question_of(row, index) for index, row in enumerate(rows)]
    replies = greedy_replies(load_engine(model_of_run(run, "assistant")), questions, 48)
    verdicts = [judge(row.answer, reply) for row, reply in zip(rows, replies, strict=True)]
    return msgspec.to_builtins(Counts.of(verdicts, len(rows)))
