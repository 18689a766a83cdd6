"""The stage of reinforcement learning with verifiable rewards: the last assistant solves problems of the tasks, which
their own scores reward, and those of files, generators and environments (`problem_sources.py`), which verifiers do.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from crawltalk import recipe
from crawltalk.chat.messages import Message
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import BadRecipe
from crawltalk.core.jsonl import read_jsonl, write_jsonl
from crawltalk.core.types import Problem
from crawltalk.engine import Engine, Sampling
from crawltalk.engine.backends.cpu import Precision
from crawltalk.model.config import read_config, shape_of
from crawltalk.model.hf import load_model
from crawltalk.model.transformer import Transformer
from crawltalk.posttraining import known
from crawltalk.posttraining.factuality import Question
from crawltalk.posttraining.mixture import Refused, describe
from crawltalk.posttraining.problem_sources import judge_of, read_sources
from crawltalk.posttraining.ray_rollouts import RayRollouts
from crawltalk.posttraining.reinforce import Group, reinforce
from crawltalk.posttraining.rollouts import (
    PROMPT,
    EngineRollouts,
    Rollouts,
    rollout_backend,
    sampling_precision,
)
from crawltalk.posttraining.tool_rollouts import ToolRollouts
from crawltalk.posttraining.tuning import (
    load_for_tuning,
    reinforcement_options,
    save_reinforced,
    starting_model,
)
from crawltalk.recipe.grpo import grpo_optim
from crawltalk.rewards.audit import audit
from crawltalk.rewards.by_task import by_task
from crawltalk.rewards.truthful import truthful
from crawltalk.rewards.verdict import Outcome, Verdict
from crawltalk.run.folder import find_run
from crawltalk.run.stage import Job, Metrics
from crawltalk.tasks import TASKS, Split, Task, check_counts
from crawltalk.tasks.corpus import Corpus
from crawltalk.tools.tool import Tool
from crawltalk.tools.toolbox import Surroundings, make_tools
from crawltalk.train.ranks import Ranks

SAMPLED = 2
"""Replies of each task that an evaluation keeps."""

ALLOW = "allow https://docs.python.org/3/"

Source = Callable[[random.Random, Split, int], Iterator[Problem]]
"""(rng, split, count) -> so many problems."""


def grpo(job: Job[recipe.Grpo]) -> Metrics:
    """Train; writes an HF folder, rollouts.jsonl, log.jsonl, problems.jsonl, samples.jsonl with replies at several
    steps, before the first one too, and refused.jsonl if any problems were set aside.
    """
    config, ranks = job.config, Ranks.join(job.machine, str(job.out))
    asked = job.inputs.get("factuality")
    sources = make_sources(config, list(read_jsonl(asked / "questions.jsonl", Question)) if asked else [])
    folder, chat = starting_model(job, "assistant")
    shape = shape_of(read_config(folder), folder)
    options = reinforcement_options(job, grpo_optim(config, shape.width))
    model = load_for_tuning(folder, config.lora, options, job.seed, ranks)
    with ExitStack() as stack:
        rollouts = stack.enter_context(sampler(job, folder, model, ranks))
        further, refused = read_sources(config, rollouts.fits, job.seed, job.progress)
        if refused and ranks.rank == 0:
            write_refused(job, refused)
        weights = {name: config.tasks[name] for name in sources}
        weights |= {name: config.data[name].weight for name in further}
        sources |= {name: source.problems for name, source in further.items()}
        tested = {
            name: list(source(random.Random(job.seed), "test", config.problems))
            for name, source in sources.items()
        }
        workers = job.machine.workers or 1
        judge = stack.enter_context(judge_of(further, task_judge, config, workers, job.progress))
        for name, problems_of_task in tested.items():
            if name not in further:
                for fault in audit(name, judge, problems_of_task).faults:
                    job.progress.note(f"what may fool the reward of {name}: {fault}")

        def problems(draw: int, _: Sequence[Group]) -> list[Problem]:
            rng = random.Random(f"{job.seed} {draw}")
            names = rng.choices(list(sources), list(weights.values()), k=config.groups)
            return [problem for name in names for problem in sources[name](rng, "train", 1)]

        def evaluate(done: int, model: Transformer) -> dict[str, Any]:
            rollouts.update_weights(model)
            figures, samples = dict[str, float](), list[dict[str, Any]]()
            sampling = Sampling(temperature=0.0, max_tokens=config.max_tokens)
            for name, asked in tested.items():
                replies = [group[0] for group in rollouts.sample(asked, range(len(asked)), 1, sampling)]
                verdicts = judge(asked, [one.text for one in replies])
                right = sum(verdict.outcome == Outcome.CORRECT for verdict in verdicts)
                figures[f"accuracy.{name}"] = round(right / len(asked), 4)
                figures[f"reward.{name}"] = round(sum(one.reward or 0.0 for one in verdicts) / len(asked), 4)
                figures[f"length.{name}"] = round(sum(sum(one.learned) for one in replies) / len(replies), 1)
                samples += [
                    {
                        "step": done,
                        "task": name,
                        "prompt": problem.prompt,
                        "answer": problem.answer,
                        "reply": chat.tokenizer.decode(one.reply) if config.tools else one.text,
                    }
                    for problem, one in list(zip(asked, replies, strict=True))[:SAMPLED]
                ]
            job.progress.note(
                f"step {done}: {', '.join(f'{key} {value:g}' for key, value in figures.items())}"
            )
            return {
                **figures,
                "asked": {name: len(asked) for name, asked in tested.items()},
                "samples": samples,
            }

        before = evaluate(0, model) if ranks.rank == 0 else {}
        metrics = reinforce(
            model, rollouts, problems, judge, config, options, job.seed, evaluate=evaluate, ranks=ranks
        )
    ranks.leave()
    if ranks.rank > 0:
        return metrics
    prompts = [encode(chat, config.system, problem) for asked in tested.values() for problem in asked]
    last = save_reinforced(model, job, chat, folder, prompts, [before])
    accuracies = [name for name in before if name.startswith("accuracy.")]
    return {
        **metrics,
        **({"refused": len(refused)} if refused else {}),
        **{f"{name}.before": before[name] for name in accuracies},
        **{name: last[name] for name in accuracies},
    }


def write_refused(job: Job[recipe.Grpo], refused: Sequence[Refused]) -> None:
    """What is not asked, and why."""
    write_jsonl(job.out / "refused.jsonl", refused)
    reasons = Counter(one.reason for one in refused)
    job.progress.warn(f"{len(refused):,} problems set aside, all in refused.jsonl: {describe(reasons)}")


def make_sources(config: recipe.Grpo, questions: Sequence[Question]) -> dict[str, Source]:
    """Where the problems of each task with a share come from. Raises BadRecipe for an unknown name, and for a task that
    makes its problems from pages.
    """
    check_counts({name: share for name, share in config.tasks.items() if name != known.KIND}, "grpo.tasks")
    sources: dict[str, Source] = {}
    for task in TASKS:
        made = task(Corpus())
        if any(True for _ in made.problems(random.Random(0), 1, "train", 1)):
            sources[task.name] = partial(_of_task, made, config.difficulty)
    if any(question.decision != "none" for question in questions):
        sources[known.KIND] = known.KnownOrNot(questions).problems
    for name, share in config.tasks.items():
        if share and name not in sources:
            raise BadRecipe(
                f"grpo.tasks.{name}: it makes no problems here. Reinforcement takes tasks that make any number of "
                f"them, and {known.KIND} where a run asks its base model what it knows (factuality.samples): "
                f"{', '.join(sources)}"
            )
    return {name: source for name, source in sources.items() if config.tasks.get(name)}


def _of_task(task: Task, difficulty: int, rng: random.Random, split: Split, count: int) -> Iterator[Problem]:
    return task.problems(rng, difficulty, split, count)


def task_judge(problems: Sequence[Problem], replies: Sequence[str]) -> list[Verdict]:
    """The verdict on each reply to a problem of a task."""
    return [verdict(problem, reply) for problem, reply in zip(problems, replies, strict=True)]


def verdict(problem: Problem, reply: str) -> Verdict:
    """The score of the task that a problem belongs to, or, of a question about a page, a reward for the truth."""
    return truthful(problem, reply) if problem.task == known.KIND else by_task(problem, reply)


@contextmanager
def sampler(job: Job[recipe.Grpo], folder: Path, model: Transformer, ranks: Ranks) -> Iterator[Rollouts]:
    """Where replies come from: an engine of this process, or those of a Ray cluster. Raises BadRecipe for a cluster
    beside several ranks.
    """
    config, tokenizer = job.config, ChatRenderer.load(folder).tokenizer
    precision = config.precision or sampling_precision(model, tokenizer)
    job.progress.note(f"replies are sampled in {precision}")
    replies = config.groups * config.samples
    make = partial(make_rollouts, folder, config, precision, replies)
    own, _ = make(str(ranks.device(job.machine.device)))
    try:
        if job.machine.executor != "ray":
            yield own
            return
        if ranks.world_size > 1:
            raise BadRecipe(
                "replies come from the ranks of torchrun or from a Ray cluster: leave one of them out"
            )
        with RayRollouts(own, make, job.machine) as rollouts:
            yield rollouts
    finally:
        own.close()


def make_rollouts(
    folder: Path, config: recipe.Grpo, precision: Precision, replies: int, device: str = "cpu"
) -> tuple[Rollouts, Transformer]:
    """Replies of the model in a folder, so many at once, and that model."""
    chat, model = ChatRenderer.load(folder), load_model(folder, device=device)
    backend = rollout_backend(model, precision, replies, PROMPT + config.max_tokens)
    engine = Engine(model, chat.tokenizer, backend, chat)
    if config.tools:
        tools = called_tools(config, engine.context)
        return ToolRollouts(engine, partial(conversation, config.system), tools, config.max_tokens), model
    return EngineRollouts(engine, partial(encode, chat, config.system), config.max_tokens), model


def called_tools(config: recipe.Grpo, context: int) -> list[Tool]:
    """The tools of a reply. Raises UserError for an unknown one, or for one that lacks what it needs: documents, or a
    list of what may be fetched.
    """
    for name, given, example in (
        ("search", config.documents, "documents runs/small"),
        ("fetch", config.allow, ALLOW),
    ):
        if name in config.tools and not given:
            raise BadRecipe(f"grpo.tools: {name} needs to know what it may read: --grpo.{example}")
    run = find_run(config.documents) if config.documents else None
    return make_tools(config.tools, Surroundings(run=run, allowed=config.allow, context=context, once=True))


def encode(chat: ChatRenderer, system: str, problem: Problem) -> list[int]:
    """The problem as a user's turn, with the assistant's turn opened."""
    return chat.encode_chat(conversation(system, problem), add_generation_prompt=True)


def conversation(system: str, problem: Problem) -> list[Message]:
    """The problem as a user asks it."""
    asked = Message("user", problem.prompt)
    return [Message("system", system), asked] if system else [asked]
