"""The examples of CONTRIBUTING.md do what it says."""

import random
import re
from pathlib import Path
from typing import Any

import torch

from crawltalk.core.types import Document
from crawltalk.pipeline import stages
from crawltalk.recipe.layers import load_recipe
from crawltalk.rewards import each
from crawltalk.tasks import Corpus
from crawltalk.train.batches import Batch
from crawltalk.train.objectives.cross_entropy import cross_entropy
from support.models import QWEN, random_model

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def example(language: str, containing: str) -> str:
    blocks = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return next(block for block in blocks if containing in block)


def names_in(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def test_the_second_fine_tuning_is_a_stage_that_later_stages_read(tmp_path):
    path = tmp_path / "polished.toml"
    path.write_text(example("toml", "[stages.polish]"))
    recipe = load_recipe(path)
    journey = {stage.name: stage for stage in stages(recipe)}
    assert list(journey)[-4:] == ["sft", "polish", "evals", "report"]
    assert {"sft", "polish"} <= set(journey["evals"].inputs)
    config = recipe.stages["polish"].config
    assert (config.epochs, config.tasks["arithmetic"], config.tasks["identity"]) == (1.0, 400, 50)
    assert recipe.sft.tasks["arithmetic"] == 200


def test_the_task_has_problems_of_both_splits_and_scores_replies():
    task = names_in(example("python", "class Reversal"))["Reversal"](Corpus(words=["cat"], new_words=["dog"]))
    (taught,) = task.problems(random.Random(0), count=1)
    (tested,) = task.problems(random.Random(0), split="test")
    assert (taught.answer, tested.answer) == ("tac", "god")
    assert task.conversation(taught, random.Random(0)).messages[1].content == "tac"
    assert (task.score(tested, "god"), task.score(tested, "dog")) == (1.0, 0.0)


def test_the_verifier_passes_its_audit_and_would_not_without_a_line(tmp_path, monkeypatch):
    code = example("python", "def palindrome")
    (tmp_path / "my_rewards.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    names = names_in(example("python", "def solve"))
    careless = names_in(code.replace("not word.isalpha() or ", ""))["palindrome"]
    found = names["audit"]("careless", each(careless), names["problems"], right=names["solve"])
    assert found.sorts["nothing"].right == 2  # ... and ####


def test_the_objective_s_figure_is_the_cross_entropy():
    objective = names_in(example("python", "def label_smoothing"))["label_smoothing"]
    tokens = torch.randint(QWEN.vocab_size, (2, 9), generator=torch.Generator().manual_seed(0))
    model, batch = random_model(QWEN), Batch(tokens[:, :-1], tokens[:, 1:])
    loss, count, figures = objective(model, batch)
    expected, expected_count, _ = cross_entropy(model, batch)
    assert count == expected_count
    torch.testing.assert_close(figures["plain_loss"], expected.detach(), rtol=1e-4, atol=1e-4)
    assert loss > 0 and loss.requires_grad


def test_the_filter_drops_lists():
    no_lists = names_in(example("python", "def no_lists"))["no_lists"]
    texts = ("List of elements", "Gold is an element.")
    fields = dict.fromkeys(("id", "dump", "url", "date", "file_path", "language"), "")
    documents = [Document(text=text, **fields, language_score=1.0, token_count=0) for text in texts]
    assert [no_lists(document) for document in documents] == ["list", None]
