"""The stage of reinforcement learning with verifiable rewards: the last assistant solves problems of the tasks, and is
rewarded by the tasks' own scores.
"""

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from crawltalk import recipe
from crawltalk.chat.messages import Message
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import BadRecipe
from crawltalk.core.jsonl import write_jsonl
from crawltalk.core.types import Problem
from crawltalk.engine import Engine, Sampling
from crawltalk.model.config import read_config, shape_of
from crawltalk.model.transformer import Transformer
from crawltalk.posttraining.reinforce import Group, reinforce
from crawltalk.posttraining.rollouts import EngineRollouts, rollout_backend
from crawltalk.posttraining.tuning import load_for_tuning, save_tuned, starting_model
from crawltalk.recipe.grpo import grpo_optim
from crawltalk.rewards.verdict import Verdict, correct, wrong
from crawltalk.run.stage import Job, Metrics
from crawltalk.tasks import TASKS, Task, check_counts, score
from crawltalk.tasks.corpus import Corpus
from crawltalk.train.batches import packed_rows
from crawltalk.train.loop import TrainingOptions, beginning
from crawltalk.train.ranks import Ranks

PROMPT = 256
"""Tokens of a prompt that the engine has room for beside a reply; with longer ones it samples fewer replies at once."""
SAMPLED = 2
"""Replies of each task that an evaluation keeps."""


def grpo(job: Job[recipe.Grpo]) -> Metrics:
    """Train; writes an HF folder, rollouts.jsonl, log.jsonl, and samples.jsonl with replies at several steps."""
    config, ranks = job.config, Ranks.join(job.machine, str(job.out))
    tasks = rewarded_tasks(config.tasks)
    folder, chat = starting_model(job, "assistant")
    shape = shape_of(read_config(folder), folder)
    options = TrainingOptions(
        steps=config.steps,
        optim=grpo_optim(config, shape.width),
        machine=job.machine,
        progress=job.progress,
        out=job.out,
        save_every=config.save_every,
        resume_from=config.resume_from,
        evaluate_every=config.eval_every,
    )
    model = load_for_tuning(folder, config.lora, options, job.seed, ranks)
    dtype = beginning(options, ranks)[1]
    room = PROMPT + config.max_tokens
    backend = rollout_backend(model, config.precision or dtype, config.groups * config.samples, room)
    engine = Engine(model, chat.tokenizer, backend, chat)
    rollouts = EngineRollouts(engine, lambda problem: encode(chat, problem), config.max_tokens)
    tested = {
        name: list(task.problems(random.Random(job.seed), config.difficulty, "test", config.problems))
        for name, task in tasks.items()
    }

    def problems(draw: int, _: Sequence[Group]) -> list[Problem]:
        rng = random.Random(f"{job.seed} {draw}")
        names = rng.choices(list(tasks), [config.tasks[name] for name in tasks], k=config.groups)
        return [next(iter(tasks[name].problems(rng, config.difficulty, "train", 1))) for name in names]

    def evaluate(done: int, model: Transformer) -> dict[str, Any]:
        engine.update_weights(model)
        figures, samples = dict[str, float](), list[dict[str, Any]]()
        sampling = Sampling(temperature=0.0, max_tokens=config.max_tokens)
        for name, asked in tested.items():
            replies = engine.generate([encode(chat, problem) for problem in asked], sampling)
            texts = [chat.tokenizer.decode(ids) for ids in replies]
            scores = [score(problem, text) for problem, text in zip(asked, texts, strict=True)]
            figures[f"accuracy.{name}"] = round(sum(scores) / len(scores), 4)
            figures[f"length.{name}"] = round(sum(map(len, replies)) / len(replies), 1)
            samples += [
                {
                    "step": done,
                    "task": name,
                    "prompt": problem.prompt,
                    "answer": problem.answer,
                    "reply": text,
                }
                for problem, text in list(zip(asked, texts, strict=True))[:SAMPLED]
            ]
        job.progress.note(f"step {done}: {', '.join(f'{key} {value:g}' for key, value in figures.items())}")
        return {**figures, "samples": samples}

    metrics = reinforce(
        model, rollouts, problems, judge_by_score, config, options, job.seed, evaluate=evaluate, ranks=ranks
    )
    ranks.leave()
    if ranks.rank > 0:
        return metrics
    rows = [json.loads(line) for line in (job.out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    evaluations = [row for row in rows if "samples" in row]
    write_jsonl(job.out / "samples.jsonl", [sample for row in evaluations for sample in row["samples"]])
    prompts = [encode(chat, problem) for asked in tested.values() for problem in asked]
    batches, _ = packed_rows([(ids, [True] * len(ids)) for ids in prompts], shape.context, shape.context, 0)
    save_tuned(model, job.out, chat, config, folder, batches(0))
    accuracies = {name: value for name, value in evaluations[-1].items() if name.startswith("accuracy.")}
    return {**metrics, **accuracies}


def rewarded_tasks(shares: Mapping[str, float]) -> dict[str, Task]:
    """The tasks with a share of the problems. Raises BadRecipe for an unknown name, and for a task that makes its
    problems from pages.
    """
    check_counts(shares, "grpo.tasks")
    made = {
        task.name: task(Corpus())
        for task in TASKS
        if any(True for _ in task(Corpus()).problems(random.Random(0), 1, "train", 1))
    }
    for name, share in shares.items():
        if share and name not in made:
            raise BadRecipe(
                f"grpo.tasks.{name}: its problems come from pages, and reinforcement takes tasks that make any number "
                f"of them: {', '.join(made)}"
            )
    return {name: task for name, task in made.items() if shares.get(name)}


def judge_by_score(problems: Sequence[Problem], replies: Sequence[str]) -> list[Verdict]:
    """The score of the task that a problem belongs to is the reward; the best one makes a reply correct."""
    rewards = [score(problem, reply) for problem, reply in zip(problems, replies, strict=True)]
    return [correct(reward) if reward == 1 else wrong(reward) for reward in rewards]


def encode(chat: ChatRenderer, problem: Problem) -> list[int]:
    """The problem as a user's turn, with the assistant's turn opened."""
    return chat.encode_chat([Message("user", problem.prompt)], add_generation_prompt=True)
