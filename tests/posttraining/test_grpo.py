"""The stage grpo on a built run."""

import json
import random

import pytest

from crawltalk import recipe
from crawltalk.core.errors import BadRecipe
from crawltalk.core.jsonl import read_jsonl
from crawltalk.core.types import Problem
from crawltalk.pipeline import stages
from crawltalk.posttraining.factuality import Question
from crawltalk.posttraining.grpo import grpo, make_sources, verdict
from crawltalk.recipe import Grpo
from crawltalk.recipe.layers import load_recipe
from crawltalk.run.stage import Job, Progress

KNOWN = Question(
    id="1", title="Gold", answer="metal", role="flagship", seen="often", repeats=9, split="train", prompt="",
    decision="answer",
)  # fmt: skip


def test_questions_are_rewarded_for_the_truth_and_sums_for_their_result():
    question = Problem(prompt="What is gold?", answer="metal", task="factuality")
    sum_ = Problem(prompt="2 + 3 =", answer="5", task="arithmetic")
    replies = ("Gold: metal.", "I don't know about that, sorry.", "Gold: river.")
    assert [verdict(question, reply).reward for reply in replies] == [1, 0, -1]
    assert [verdict(sum_, reply).reward for reply in ("2 + 3 = 5", "<think>5</think>6", "<think>5")] == [
        1,
        0,
        0,
    ]


def test_problems_come_from_the_tasks_with_a_share():
    sources = make_sources(Grpo(tasks={"arithmetic": 2, "factuality": 1, "identity": 0}), [KNOWN])
    assert list(sources) == ["arithmetic", "factuality"]
    for name, source in sources.items():
        assert {problem.task for problem in source(random.Random(0), "train", 5)} == {name}


@pytest.mark.parametrize(
    ("tasks", "questions", "what"),
    [
        ({"flagship": 1}, [KNOWN], "grpo.tasks.flagship: it makes no problems here"),
        ({"factuality": 1}, [], r"grpo.tasks.factuality: .*factuality.samples"),
        ({"sums": 1}, [], "no task is called 'sums'"),
    ],
)
def test_a_task_without_problems_is_refused(tasks, questions, what):
    with pytest.raises(BadRecipe, match=what):
        make_sources(Grpo(tasks=tasks), questions)


def test_a_recipe_without_a_share_has_no_such_stage():
    def names(flags: dict[str, str]) -> list[str]:
        return [stage.name for stage in stages(load_recipe("nano", flags=flags))]

    assert "grpo" not in names({})
    assert names({"grpo.tasks.arithmetic": "1"})[-3:] == ["grpo", "evals", "report"]


@pytest.mark.slow
def test_the_assistant_of_a_run_is_reinforced(nano, tmp_path):
    config = Grpo(
        steps=2,
        groups=4,
        samples=2,
        max_tokens=24,
        problems=4,
        kl=0.01,
        tasks={"arithmetic": 1, "factuality": 1},
    )
    inputs = {name: nano / name for name in ("factuality", "sft")}
    job = Job(config, inputs, tmp_path, 0, recipe.Machine(workers=1), Progress(), {"sft": "assistant"})
    metrics = grpo(job)
    assert metrics["steps"] == 2
    assert {"accuracy.arithmetic.before", "accuracy.arithmetic", "accuracy.factuality"} <= set(metrics)
    assert (tmp_path / "problems.jsonl").read_bytes() == (nano / "sft" / "problems.jsonl").read_bytes()
    steps = [json.loads(line)["step"] for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert steps == [0] * 4 + [2] * 4
    log = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert [row["asked"] for row in log if "asked" in row] == [{"arithmetic": 4, "factuality": 4}]
    tasks = {
        json.loads(line)["problem"]["task"] for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()
    }
    assert tasks == {"arithmetic", "factuality"}
    assert list(read_jsonl(tmp_path / "problems.jsonl", Problem))
