"""The stages of a recipe's journey: those it has to ask for, and further ones of a kind."""

import pytest

from crawltalk.core.errors import BadRecipe
from crawltalk.pipeline import STAGES, stages
from crawltalk.recipe.layers import load_recipe


def journey(**tables: str):
    """The stages by name, of nano with `name="kind model"` as further ones."""
    flags = {}
    for name, text in tables.items():
        kind, model = text.split()
        flags |= {f"stages.{name}.kind": kind, f"stages.{name}.model": model}
    return {stage.name: stage for stage in stages(load_recipe("nano", flags=flags))}


def models(stage) -> list[str]:
    return [
        name
        for name in stage.inputs
        if name not in ("tokens", "index", "tokenizer", "data", "crawl", "evals", "factuality")
    ]


def test_the_usual_journey_has_every_stage_but_those_to_be_asked_for():
    asked_for = ("factuality",)  # by nano
    usual = [stage.name for stage in STAGES if not stage.optional or stage.name in asked_for]
    assert list(journey()) == usual
    every = {
        "sweep.depths": "1,2",
        "synthesize.questions": "5",
        "dpo.data": "pairs.jsonl",
        "reward.data": "pairs.jsonl",
        "rlhf.prompts": "pairs.jsonl",
        "grpo.tasks.arithmetic": "1",
        "redteam.doors": "1",
    }
    with_all = stages(load_recipe("nano", flags=every))
    assert with_all == STAGES


def test_every_stage_comes_after_its_inputs():
    seen = set()
    for name, stage in journey(two="sft sft", three="sft two", zero="sft pretrain").items():
        assert set(stage.inputs) <= seen
        seen.add(name)


def test_a_further_stage_starts_from_its_model_and_what_comes_later_prefers_it():
    built = journey(two="sft sft")
    assert list(built)[-4:] == ["sft", "two", "evals", "report"]
    assert built["two"].inputs == ("sft", "factuality", "tokenizer", "tokens", "data")
    assert (built["two"].kind, built["two"].makes) == ("sft", "assistant")
    assert models(built["sft"]) == ["pretrain"]
    assert models(built["evals"]) == models(built["report"]) == ["pretrain", "sft", "two"]


def test_rounds_and_branches():
    built = journey(three="sft two", two="sft sft", other="sft sft")  # in any order of the tables
    assert list(built)[-6:] == ["sft", "two", "other", "three", "evals", "report"]
    assert (models(built["three"]), models(built["other"])) == (["two"], ["sft"])
    assert models(built["evals"]) == ["pretrain", "sft", "two", "other", "three"]
    built = journey(before="sft pretrain")
    assert models(built["sft"]) == ["pretrain", "before"]  # fine-tuning starts from it


def test_of_a_chain_the_link_that_is_wrong_is_named_and_a_circle_is_called_one():
    with pytest.raises(BadRecipe, match=r"stages\.three\.model: .* called 'stf'; did you mean 'sft'\?"):
        journey(two="sft three", three="sft stf")
    with pytest.raises(
        BadRecipe, match=r"stages\.two\.model: .* 'three', but one that waits for it; these do"
    ):
        journey(two="sft three", three="sft two")


@pytest.mark.parametrize(
    ("name", "table", "words"),
    [
        ("evals", "sft sft", "the name 'evals' is taken"),
        ("sweep", "sft sft", "the name 'sweep' is taken"),
        ("rescued", "sft sft", "is taken"),
        ("two", "data sft", "data starts from no model, so it cannot be repeated; these can: sft"),
        ("two", "sft tokens", "these do: pretrain, sft"),
        ("two", "sft two", "no stage before it makes a model called 'two'"),
        ("two", "sft pretrian", "did you mean 'pretrain'"),
    ],
)
def test_a_further_stage_that_cannot_be_is_one_line_with_the_way_out(name, table, words):
    with pytest.raises(BadRecipe) as error:
        journey(**{name: table})
    assert words in str(error.value)
    assert "\n" not in str(error.value)
