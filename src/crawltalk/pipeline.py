"""The journey: the stages in order. Each is a function from directories to a directory (`run.stage`)."""

import dataclasses

from crawltalk.core.errors import BadRecipe
from crawltalk.recipe import Recipe
from crawltalk.recipe.keys import did_you_mean
from crawltalk.run.stage import RESCUED, Stage

BENCHMARKS = "benchmarks"
"""The folder of a run with what `crawltalk eval` and `crawltalk judge lm-eval` measured on its models."""
STAGES = (
    Stage(
        "crawl",
        (),
        "crawltalk.crawl.stage:crawl",
        "raw web pages, as WARC",
        external_inputs="crawltalk.crawl.external_inputs:external_inputs",
        version=4,
    ),
    Stage(
        "data",
        ("crawl",),
        "crawltalk.data.stage:data",
        "clean, deduplicated documents, and why the others were dropped",
        version=6,
        external_inputs="crawltalk.data.external_inputs:external_inputs",
    ),
    Stage(
        "tokenizer",
        ("data",),
        "crawltalk.pretraining.tokenizer:tokenizer",
        "byte-level BPE learned from the documents",
        version=3,
    ),
    Stage(
        "tokens", ("data", "tokenizer"), "crawltalk.pretraining.tokens:tokens", "the mixture as token shards"
    ),
    Stage(
        "index",
        ("tokens",),
        "crawltalk.retrieval.stage:index",
        "where every run of tokens stands in the shards",
    ),
    Stage(
        "synthesize",
        ("data",),
        "crawltalk.posttraining.synthesize:synthesize",
        "questions and answers from the documents",
        optional="questions",
        external_inputs="crawltalk.posttraining.external_inputs:external_inputs",
    ),
    Stage(
        "sweep",
        ("tokens", "tokenizer"),
        "crawltalk.pretraining.sweep:sweep",
        "small models that predict the loss of a larger one",
        optional="depths",
    ),
    Stage(
        "pretrain",
        ("tokens", "tokenizer"),
        "crawltalk.pretraining.pretrain:pretrain",
        "the base model: an internet document simulator",
        version=3,
        makes="base",
        ranks=True,
    ),
    Stage(
        "factuality",
        ("pretrain", "tokens", "data"),
        "crawltalk.posttraining.factuality:factuality",
        "what the base model knows of its pages, and what it makes up",
        optional="samples",
        external_inputs="crawltalk.posttraining.external_inputs:external_inputs",
        version=2,
        replaced={"base": ("pretrain",)},
    ),
    Stage(
        "sft",
        ("pretrain", "factuality", "tokenizer", "tokens", "data", "synthesize"),
        "crawltalk.posttraining.sft:sft",
        "the assistant, from conversations",
        external_inputs="crawltalk.posttraining.external_inputs:external_inputs",
        version=5,
        makes="assistant",
        ranks=True,
        replaced={"base": ("pretrain", "tokenizer"), "base+data": ("factuality", "tokens", "data")},
    ),
    Stage(
        "dpo",
        ("sft",),
        "crawltalk.posttraining.dpo:dpo",
        "the assistant, from pairs of a better and a worse reply",
        optional="data",
        makes="assistant",
        ranks=True,
        external_inputs="crawltalk.posttraining.external_inputs:external_inputs",
        version=2,
        replaced={"base": ("sft",)},
    ),
    Stage(
        "reward",
        ("sft",),
        "crawltalk.posttraining.reward:reward",
        "a model that scores replies, from pairs of a better and a worse one",
        optional="data",
        makes="reward",
        ranks=True,
        external_inputs="crawltalk.posttraining.external_inputs:external_inputs",
        version=2,
        replaced={"base": ("sft",)},
    ),
    Stage(
        "rlhf",
        ("sft", "dpo", "reward"),
        "crawltalk.posttraining.rlhf:rlhf",
        "the assistant, reinforced by a reward model",
        optional="prompts",
        makes="assistant",
        ranks=True,
        external_inputs="crawltalk.posttraining.external_inputs:external_inputs",
        version=2,
        replaced={"base": ("sft", "dpo"), "reward": ("reward",)},
    ),
    Stage(
        "grpo",
        ("factuality", "sft", "dpo", "rlhf"),
        "crawltalk.posttraining.grpo:grpo",
        "the assistant, reinforced by rewards that can be verified",
        optional="tasks|data",
        makes="assistant",
        ranks=True,
        external_inputs="crawltalk.posttraining.external_inputs:external_inputs",
        replaced={"base": ("factuality", "sft", "dpo", "rlhf")},
    ),
    Stage(
        "evals",
        (
            "pretrain",
            "factuality",
            "sft",
            "dpo",
            "rlhf",
            "grpo",
            "tokens",
            "index",
            "tokenizer",
            "data",
            "synthesize",
        ),
        "crawltalk.evals.stage:evals",
        "what both models can do",
        external_inputs="crawltalk.evals.external_inputs:external_inputs",
        version=7,
    ),
    Stage(
        "redteam",
        ("sft", "dpo", "rlhf", "grpo"),
        "crawltalk.redteam.stage:redteam",
        "attacks on the assistant and on a small one with a policy of ours, and the defences beside them",
        optional="doors",
        version=3,
    ),
    Stage(
        "report",
        (
            *("crawl", "data", "tokenizer", "tokens", "index", "sweep"),
            *("pretrain", "factuality", "sft", "dpo", "rlhf", "grpo", "evals", "redteam"),
        ),
        "crawltalk.report.stage:report",
        "one HTML file that tells it all",
        external_inputs="crawltalk.report.external_inputs:external_inputs",
        beside=(BENCHMARKS,),
        version=9,
    ),
)
"""All built-in stages, those that a recipe has to ask for among them."""


def stages(recipe: Recipe) -> tuple[Stage, ...]:
    """The stages of a recipe's journey, in order: the built-in ones, and its further ones (`[stages.NAME]`).

    A further stage stands behind the stage whose model it starts from. What comes later and takes that model
    takes the new one as well, as the later and so the preferred one (`Job.model`). Raises BadRecipe for a name
    that is taken, a kind that starts from no model, or a model that no stage makes.
    """
    for name in recipe.stages:
        if name in (RESCUED, BENCHMARKS, *(stage.name for stage in STAGES)):
            raise BadRecipe(f"stages.{name}: the name {name!r} is taken; choose another")
    journey = [stage for stage in STAGES if stage.wanted(recipe)]
    present = {stage.name for stage in journey}
    journey = [
        _with_inputs(stage, [name for name in stage.needed(recipe) if name in present]) for stage in journey
    ]
    waiting = list(recipe.stages)
    while waiting:
        makers = [stage.name for stage in journey if stage.makes]
        ready = [name for name in waiting if recipe.stages[name].model in makers]
        if not ready:
            # of a chain the one whose model is nowhere is wrong, and those behind it are not
            lost = [name for name in waiting if recipe.stages[name].model not in waiting]
            name = (lost or waiting)[0]
            wrong = recipe.stages[name].model
            near = did_you_mean(wrong, [*makers, *waiting]) if lost else ", but one that waits for it"
            raise BadRecipe(
                f"stages.{name}.model: no stage before it makes a model called {wrong!r}{near}; "
                f"these do: {', '.join(makers)}"
            )
        for name in ready:
            _insert(journey, recipe, name)
            waiting.remove(name)
    return tuple(journey)


def _insert(journey: list[Stage], recipe: Recipe, name: str) -> None:
    """Insert a further stage behind the one that makes its model, which is in the journey already."""
    further = recipe.stages[name]
    original = next(stage for stage in STAGES if stage.name == further.kind)
    makes = {stage.name: stage.makes for stage in (*STAGES, *journey)}
    if not original.makes or not any(makes[name] for name in original.inputs):
        kinds = [stage.name for stage in STAGES if stage.makes and any(makes[name] for name in stage.inputs)]
        raise BadRecipe(
            f"stages.{name}.kind: {further.kind} starts from no model, so it cannot be repeated; these can: "
            f"{', '.join(kinds)}"
        )
    if getattr(further.config, "base", ""):
        raise BadRecipe(
            f"stages.{name}.config.base: a further stage starts from its `model`, {further.model}; leave base out"
        )
    names = [other.name for other in journey]
    inputs = (further.model, *(other for other in original.inputs if other in names and not makes[other]))
    about = f"{original.about}, from {further.model}"
    stage = dataclasses.replace(original, name=name, inputs=inputs, about=about, section=further.kind)
    position = max(_position_behind(names, other, recipe) for other in inputs)
    journey.insert(position, stage)
    for index, later in enumerate(journey[position + 1 :], position + 1):
        if further.model in later.inputs and later.name not in recipe.stages:
            names = list(later.inputs)
            names.insert(_position_behind(names, further.model, recipe), name)
            journey[index] = _with_inputs(later, names)


def _position_behind(names: list[str], model: str, recipe: Recipe) -> int:
    """The position behind a stage and the further ones that follow it."""
    position = names.index(model) + 1
    while position < len(names) and names[position] in recipe.stages:
        position += 1
    return position


def _with_inputs(stage: Stage, names: list[str]) -> Stage:
    return dataclasses.replace(stage, inputs=tuple(names))
