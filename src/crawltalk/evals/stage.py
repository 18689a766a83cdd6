"""The evaluation stage: both models through the one decoder."""

from collections import Counter
from collections.abc import Sequence

import msgspec

from crawltalk import recipe
from crawltalk.chat.messages import Conversation, Message
from crawltalk.core.files import write_atomically
from crawltalk.core.jsonl import read_jsonl, write_jsonl
from crawltalk.core.shards import TokenShards
from crawltalk.core.types import Problem
from crawltalk.engine import Engine, Sampling
from crawltalk.evals import base as base_model
from crawltalk.evals.score import TASKS, Sample, refuses, standard_error
from crawltalk.model.hf import load_model
from crawltalk.run.stage import Job, Metrics, Progress
from crawltalk.train.validate import bits_per_byte

SHOWN = 24
"""Sample conversations for the report."""


class Score(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of scores.json."""

    score: float
    n: int
    stderr: float | None = None
    about: str = ""


def evals(job: Job[recipe.Evals]) -> Metrics:
    """Write samples.jsonl, scores.json, recall.jsonl, side_by_side.jsonl and conversations.jsonl."""
    base, assistant = Engine.load(job.inputs["pretrain"]), Engine.load(job.inputs["sft"])
    shards = TokenShards(job.inputs["tokens"], "val")
    scores = {
        "bits_per_byte": Score(
            score=round(bits_per_byte(load_model(job.inputs["pretrain"]), shards), 4),
            n=shards.bytes,
            about="base model, held-out text; lower is better",
        )
    }
    flagships = base_model.flagships(job)
    if flagships:
        share = base_model.recitation(base, flagships)
        scores["recitation"] = Score(
            score=round(share, 4),
            n=len(flagships),
            about=f"base model: share of the {base_model.RECITED} tokens after the first {base_model.PROMPT}",
        )
    write_jsonl(job.out / "recall.jsonl", base_model.recall(base, job))
    write_jsonl(job.out / "side_by_side.jsonl", base_model.side_by_side(base, job))
    prompted = base_model.by_prompt(base, job)
    for task in dict.fromkeys(sample.task for sample in prompted):
        scores[task] = _score([sample.score for sample in prompted if sample.task == task], ABOUT[task])
    problems = _problems(job)
    samples = ask(assistant, problems, job.config.max_tokens, job.progress)
    for task in TASKS:
        of_task = [sample for sample in samples if sample.task == task]
        if of_task:
            scores[task] = _score([sample.score for sample in of_task], ABOUT[task])
    tail = [sample for sample in samples if sample.task == "tail"]
    if tail:
        refused = [refuses(Problem(prompt="", answer="", task=""), sample.reply) for sample in tail]
        scores["tail_refused"] = _score(refused, "pages read a few times only, declined")
    write_jsonl(job.out / "samples.jsonl", [*prompted, *samples])
    write_jsonl(job.out / "conversations.jsonl", show(assistant, samples, job.config.max_tokens))
    write_atomically(job.out / "scores.json", msgspec.json.format(msgspec.json.encode(scores)))
    return {name: score.score for name, score in scores.items()}


ABOUT = {
    "zero_shot": "base model: a title and a colon, its description expected",
    "few_shot": "base model: the same after three examples",
    "by_prompt": "base model: asked in a transcript of a helpful assistant, after three turns",
    "flagship": "description recalled, question forms never trained on",
    "heldout": "titles that no stage has seen, declined",
    "tail": "pages read a few times only, description recalled",
    "arithmetic": "sums never trained on",
    "spelling": "words spelled in training, a question form never trained on",
    "spelling_new": "words never spelled in training: a model sees tokens, not letters",
    "identity": "who the assistant is, as trained",
}


def ask(assistant: Engine, problems: Sequence[Problem], max_tokens: int, progress: Progress) -> list[Sample]:
    """Put every problem to the assistant, greedily, and score the replies."""
    prompts = [assistant.prompt([Message("user", problem.prompt)])[0] for problem in problems]
    replies = assistant.generate(
        prompts,
        Sampling(temperature=0.0, max_tokens=max_tokens),
        progress=lambda done: progress.update(done, len(problems), "problems"),
    )
    samples = []
    for problem, ids in zip(problems, replies, strict=True):
        reply = assistant.tokenizer.decode(ids)
        score = TASKS[problem.task](problem, reply)
        samples.append(
            Sample(task=problem.task, prompt=problem.prompt, answer=problem.answer, reply=reply, score=score)
        )
    return samples


def show(assistant: Engine, samples: Sequence[Sample], max_tokens: int) -> list[Conversation]:
    """Readable conversations of every kind, right and wrong as they came; the last ones have two exchanges."""
    by_task: dict[str, list[Sample]] = {}
    for sample in samples:
        by_task.setdefault(sample.task, []).append(sample)
    chosen: list[Sample] = []
    while len(chosen) < SHOWN and any(by_task.values()):
        chosen += [rows.pop(0) for rows in by_task.values() if rows]
    shown = [
        Conversation(messages=[Message("user", s.prompt), Message("assistant", s.reply)], source=s.task)
        for s in chosen[:SHOWN]
    ]
    greedy = Sampling(temperature=0.0, max_tokens=max_tokens)
    for first, second in zip(chosen[:4], chosen[6:10], strict=False):
        messages = [
            Message("user", first.prompt),
            Message("assistant", first.reply),
            Message("user", second.prompt),
        ]
        reply = assistant.reply(messages, greedy)
        shown.append(
            Conversation(
                messages=[*messages, Message("assistant", reply)], source=f"{first.task}, {second.task}"
            )
        )
    return shown


def _problems(job: Job[recipe.Evals]) -> list[Problem]:
    """At most `problems` of each task."""
    seen: Counter[str] = Counter()
    chosen = []
    for problem in read_jsonl(job.inputs["sft"] / "problems.jsonl", Problem):
        seen[problem.task] += 1
        if problem.task in TASKS and seen[problem.task] <= job.config.problems:
            chosen.append(problem)
    return chosen


def _score(values: Sequence[float], about: str) -> Score:
    mean = sum(values) / len(values)
    return Score(
        score=round(mean, 4), n=len(values), stderr=round(standard_error(mean, len(values)), 4), about=about
    )
