"""Reinforcement learning from rewards, on the one training loop and the one engine: GRPO (Shao et al. 2024) and its
relatives.

Each step the engine gets the weights, replies to some problems several times, a judge rewards the replies, and the
policy gradient makes those likelier that were worth more than their group's mean. All of it is a function of the step
and the weights: a training that was killed continues from its checkpoint as if nothing had happened.

It writes rollouts.jsonl, a `Group` a line, and into log.jsonl the figures of each step: `reward`, `accuracy` (the share
of correct replies among those that could be judged), `pass_at_k` (the share of problems with a correct reply among the
k that were drawn), `length` (tokens of a reply that the policy wrote), `calls` (of tools, in a reply), `truncated` (the
share cut at the limit), `groups_without_signal`, `not_judged` (the share of replies without a reward),
`rollout_tokens_per_second`; and those of the objective (`train/objectives/policy_gradient.py`).
"""

import copy
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from crawltalk.core.errors import BadInput, BadRecipe, UserError
from crawltalk.core.jsonl import write_jsonl
from crawltalk.core.types import Problem
from crawltalk.model.transformer import Transformer
from crawltalk.posttraining.advantages import advantages, has_signal
from crawltalk.posttraining.forecast import length_forecast
from crawltalk.posttraining.rollouts import Rollout, Rollouts
from crawltalk.recipe import Reinforce
from crawltalk.rewards.verdict import Judge, Outcome, Verdict
from crawltalk.run.stage import Metrics
from crawltalk.train.batches import IGNORE_INDEX, ROW_STEP, Batch, fewest_positions
from crawltalk.train.loop import (
    TrainingOptions,
    beginning,
    compute_copy,
    fit,
    longest_row,
    micro_batches,
    rescue,
)
from crawltalk.train.objectives.log_probs import target_log_probs
from crawltalk.train.objectives.policy_gradient import policy_gradient
from crawltalk.train.ranks import ALONE, Ranks

ROLLOUTS = "rollouts.jsonl"
PATIENCE = 10
"""Samplings in a row without any signal after which a training is given up."""
MAX_SAMPLER_DIFFERENCE = 0.02
"""Mean |log-ratio| between sampler and trainer, in nats, above which it is reported."""
MAX_NOT_JUDGED = 0.5
"""The share of replies without a reward at which a training stops: its verifier does not work."""


class Group(msgspec.Struct, kw_only=True):
    """The replies to one problem."""

    step: int
    """The optimizer step that learned from them first."""
    problem: Problem
    replies: list[str]
    lengths: list[int]
    """Tokens that the policy wrote."""
    verdicts: list[Verdict]

    @property
    def rewards(self) -> list[float | None]:
        """Of each reply; None where there is none."""
        return [verdict.reward for verdict in self.verdicts]


Problems = Callable[[int, Sequence[Group]], Sequence[Problem]]
"""(number of the draw, all groups so far) -> the problems of a step, the same for the same arguments. So a curriculum
follows from what was learned, and survives an interruption.
"""


class Replies:
    """The source of batches: samples replies, has them judged, and packs them into rows."""

    def __init__(
        self,
        model: Transformer,
        rollouts: Rollouts,
        problems: Problems,
        judge: Judge,
        config: Reinforce,
        out: Path,
        seed: int,
        *,
        first: int = 0,
        reference: Transformer | None = None,
        threads: int = 1,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model, self.rollouts, self.problems, self.judge = model, rollouts, problems, judge
        self.config, self.seed, self.reference, self.ranks = config, seed, reference, ranks
        self.threads = threads
        self.path = out / ROLLOUTS
        self.history = [group for group in _written(self.path) if group.step < first]
        if ranks.rank == 0:
            write_jsonl(self.path, self.history)  # what is newer than the checkpoint is sampled again
        self._round: tuple[int, list[list[tuple[Rollout, float]]], dict[str, float]] | None = None

    def __call__(self, step: int) -> Batch:
        """The batch of a step; the model has the weights of that step."""
        number, part = divmod(step, self.config.updates)
        if self._round is None or self._round[0] != number:
            self._round = (number, *self._sample(number))
        _, groups, figures = self._round
        share = groups[part :: self.config.updates]
        return self._batch([one for group in share for one in group], figures, step)

    def _sample(self, number: int) -> tuple[list[list[tuple[Rollout, float]]], dict[str, float]]:
        """The groups of rollouts with their advantages that are learned from, and figures of all that were sampled."""
        config = self.config
        self.rollouts.update_weights(self.model)
        sampled: list[list[Rollout]] = []
        groups: list[Group] = []
        began = time.monotonic()
        for draw in range(number * config.rounds, (number + 1) * config.rounds):
            problems = self._fitting(self.problems(draw, self.history))
            own = self._roll_out(problems[self.ranks.rank :: self.ranks.world_size], draw, problems)
            for rolled, group in own:
                group.step = number * config.updates
                sampled.append(rolled)
                groups.append(group)
            if sum(has_signal(group.rewards) for group in groups) >= config.groups:
                break
        seconds = time.monotonic() - began
        self.history += groups
        if self.ranks.rank == 0:
            with self.path.open("ab") as file:
                file.writelines(msgspec.json.encode(group) + b"\n" for group in groups)
        rewards = [group.rewards for group in groups]
        learned = [
            [(rollout, one) for rollout, one in zip(rolled, values, strict=True) if one is not None]
            for rolled, values, group in zip(
                sampled, advantages(rewards, config.advantage), groups, strict=True
            )
            if has_signal(group.rewards) or config.advantage == "reinforce"
        ]
        return learned[: config.groups], _figures(groups, sampled, seconds)

    def _fitting(self, problems: Sequence[Problem]) -> list[Problem]:
        fitting = [problem for problem in problems if self.rollouts.fits(problem)]
        if not fitting:
            raise BadInput(
                f"none of {len(problems)} problems fits into the context of {self.model.shape.context} tokens with "
                "room for a reply; ask shorter ones, lower max_tokens, or offer fewer tools"
            )
        return fitting

    def _roll_out(
        self, own: Sequence[Problem], draw: int, problems: Sequence[Problem]
    ) -> list[tuple[list[Rollout], Group]]:
        """The replies to a rank's own problems, judged; then those of all ranks, in the order of the problems."""
        rank, world_size = self.ranks.rank, self.ranks.world_size
        seed = random.Random(f"{self.seed} {draw}").getrandbits(63)
        numbers = range(rank, len(problems), world_size)
        rolled = self.rollouts(own, numbers, self.config.samples, seed)
        asked = [problem for problem, group in zip(own, rolled, strict=True) for _ in group]
        verdicts = iter(self.judge(asked, [one.text for group in rolled for one in group]))
        mine = [
            (
                group,
                Group(
                    step=0,
                    problem=problem,
                    replies=[one.text for one in group],
                    lengths=[sum(one.learned) for one in group],
                    verdicts=[_finite(next(verdicts)) for _ in group],
                ),
            )
            for problem, group in zip(own, rolled, strict=True)
        ]
        shares = self.ranks.gather(mine)
        return [shares[number % world_size][number // world_size] for number in range(len(problems))]

    def _batch(
        self, learned: Sequence[tuple[Rollout, float]], figures: Mapping[str, float], step: int
    ) -> Batch:
        prompts = [tuple(one.prompt) for one, _ in learned]
        packs, length = packed(prompts, [len(one.reply) for one, _ in learned], longest_row(self.model), step)
        size = len(packs), length
        tokens, targets = np.zeros(size, np.int64), np.full(size, IGNORE_INDEX, np.int64)
        documents, parents = (np.full(size, -1, np.int64) for _ in range(2))
        columns = {name: np.zeros(size, np.float32) for name in ("advantages", "log_probs", "weights")}
        total = sum(sum(one.learned) for one, _ in learned)
        for row, pack in enumerate(packs):
            start, number = 0, 0
            for prompt, chosen in pack.items():
                # a prompt stands there once, but for its last token, behind which each reply begins
                parent, end = (number, start + len(prompt) - 1) if len(prompt) > 1 else (-1, start)
                tokens[row, start:end], documents[row, start:end] = prompt[:-1], number
                start = end
                for index in chosen:
                    one, advantage = learned[index]
                    start, end, number = end, end + len(one.reply), number + 1
                    tokens[row, start:end] = [prompt[-1], *one.reply[:-1]]
                    documents[row, start:end], parents[row, start:end] = number, parent
                    targets[row, start:end] = np.where(one.learned, one.reply, IGNORE_INDEX)
                    weight = self._weight(sum(one.learned), total, len(learned))
                    columns["advantages"][row, start:end] = advantage * weight
                    columns["weights"][row, start:end] = weight
                    columns["log_probs"][row, start:end] = one.log_probs
                start, number = end, number + 1
        extras = {name: torch.from_numpy(column) for name, column in columns.items()}
        batch = Batch(
            torch.from_numpy(tokens),
            torch.from_numpy(targets),
            torch.from_numpy(documents),
            extras,
            figures,
            torch.from_numpy(parents),
        )
        if self.reference is not None:
            extras["reference"] = _log_probs(self.reference, batch, self.threads)
        return batch

    def _weight(self, length: int, total: int, count: int) -> float:
        """Of each token of a reply of this length; the loop divides by the `total` of tokens of all replies."""
        if self.config.loss == "token":
            return 1.0
        return total / (count * (length if self.config.loss == "sequence" else self.config.max_tokens))


def reinforce(
    model: Transformer,
    rollouts: Rollouts,
    problems: Problems,
    judge: Judge,
    config: Reinforce,
    options: TrainingOptions,
    seed: int,
    *,
    evaluate: Callable[[int, Transformer], dict[str, Any]] | None = None,
    save_model: Callable[[int, Transformer], None] | None = None,
    ranks: Ranks = ALONE,
) -> Metrics:
    """Train `model` in place; `evaluate` and `save_model` as those of `fit`. With adapters they get the model as it is.

    Raises UserError, with a checkpoint kept, when the entropy or the divergence leaves its bounds, when no reply of
    several samplings differed in reward, or when the judge fails; BadRecipe for settings that contradict each other.
    """
    _check(config, options)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    first, dtype, _ = beginning(options, ranks)
    reference = copy.deepcopy(compute_copy(model, dtype)).requires_grad_(False) if config.kl else None
    replies = Replies(
        model, rollouts, problems, judge, config, out, seed,
        first=first, reference=reference, threads=options.machine.workers or torch.get_num_threads(), ranks=ranks,
    )  # fmt: skip
    warned = False

    def stop(row: Mapping[str, Any]) -> str | None:
        nonlocal warned
        difference = row.get("sampler_difference") or 0.0
        if difference > MAX_SAMPLER_DIFFERENCE and not warned:
            warned = True
            options.progress.warn(
                f"sampler and trainer differ by {difference:.3f} nats a token: both should compute in one precision, "
                "such as --machine.dtype float32"
            )
        if row["step"] == 0:
            said = [(group.lengths, group.rewards) for group in replies.history]
            options.progress.note(str(length_forecast(*zip(*said, strict=True))))
        if (row["step"] + 1) % config.updates:
            return None  # what was sampled is used up before a checkpoint
        return _alarm(row, config, replies.history)

    metrics = fit(
        model, replies, policy_gradient(config.clip_low, config.clip_high, config.kl), options,
        evaluate=evaluate, save_model=save_model, stop=stop, ranks=ranks,
    )  # fmt: skip
    if "stopped" in metrics:
        rescue(out, int(metrics["steps"]), ranks)
        raise UserError(f"{metrics['stopped']} (step {metrics['steps']}; its checkpoint is kept)")
    tail = replies.history[-config.groups :]
    return {**metrics, **{name: round(value, 4) for name, value in _outcomes(tail).items()}}


def _check(config: Reinforce, options: TrainingOptions) -> None:
    if options.save_every % config.updates:
        raise BadRecipe(
            f"save_every is {options.save_every}, and replies last for {config.updates} updates: a checkpoint has to "
            "stand between two samplings, so make it a multiple"
        )
    if config.max_kl is not None and not config.kl:
        raise BadRecipe("max_kl is a bound of the divergence, which is computed only if kl is above 0")
    if config.samples < 2 and config.advantage != "reinforce":
        raise BadRecipe(
            f"samples is {config.samples}: replies are compared within a group, so it takes 2 or more"
        )
    if options.machine.shard:
        raise BadRecipe("replies are sampled from whole weights: leave machine.shard out")


def _alarm(row: Mapping[str, Any], config: Reinforce, history: Sequence[Group]) -> str | None:
    """Why a training should not go on, if so."""
    entropy, divergence = row.get("entropy"), row.get("kl")
    if entropy is not None and entropy < config.min_entropy:
        return (
            f"the entropy has fallen to {entropy:.4f} nats a token, below min_entropy: the replies are all alike; "
            "lower the learning rate, raise clip_high, or give harder problems"
        )
    if config.max_kl is not None and divergence is not None and divergence > config.max_kl:
        return (
            f"the policy is {divergence:.4f} nats a token away from the model that it started from, more than max_kl; "
            "raise kl, lower the learning rate, or take an earlier checkpoint"
        )
    if row.get("not_judged", 0.0) > MAX_NOT_JUDGED:
        reason = next(
            verdict.reason
            for group in reversed(history)
            for verdict in group.verdicts
            if verdict.reward is None
        )
        return f"{row['not_judged']:.0%} of the replies got no reward ({reason}): mend the verifier"
    recent = [group for group in history if group.step > row["step"] - PATIENCE * config.updates]
    if len({group.step for group in recent}) >= PATIENCE and not any(
        has_signal(one.rewards) for one in recent
    ):
        solved = _outcomes(recent)["accuracy"] > 0.5
        advice = (
            "harder problems"
            if solved
            else "easier problems, more samples, or a model that solves some of them"
        )
        return f"all replies to a problem were worth the same in {PATIENCE} samplings, so nothing is learned; {advice}"
    return None


def _outcomes(groups: Sequence[Group]) -> dict[str, float]:
    verdicts = [verdict for group in groups for verdict in group.verdicts]
    rewards = [verdict.reward for verdict in verdicts if verdict.reward is not None]
    right = [verdict.outcome == Outcome.CORRECT for verdict in verdicts if verdict.reward is not None]
    return {"reward": _mean(rewards), "accuracy": _mean(right)}


def _figures(
    groups: Sequence[Group], sampled: Sequence[Sequence[Rollout]], seconds: float
) -> dict[str, float]:
    replies = [one for group in sampled for one in group]
    solved = [any(verdict.outcome == Outcome.CORRECT for verdict in group.verdicts) for group in groups]
    written = sum(sum(one.learned) for one in replies)
    return {
        **_outcomes(groups),
        "pass_at_k": _mean(solved),
        "length": written / max(1, len(replies)),
        "calls": _mean([one.calls for one in replies]),
        "truncated": _mean([not one.finished for one in replies]),
        "groups_without_signal": _mean([not has_signal(group.rewards) for group in groups]),
        "not_judged": _mean([reward is None for group in groups for reward in group.rewards]),
        "rollout_tokens_per_second": round(written / max(seconds, 1e-9)),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))


def _finite(verdict: Verdict) -> Verdict:
    """The verdict; a reward that is not finite is an error of the judge."""
    if verdict.reward is not None and not math.isfinite(verdict.reward):
        return Verdict(Outcome.ERROR, None, f"the reward is {verdict.reward}")
    return verdict


def _written(path: Path) -> Iterator[Group]:
    """The groups in a file, up to a line that was not written to its end when the process was killed."""
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            yield msgspec.json.decode(line, type=Group)
        except msgspec.MsgspecError:
            return


def packed(
    prompts: Sequence[tuple[int, ...]], lengths: Sequence[int], most: int, seed: int
) -> tuple[list[dict[tuple[int, ...], list[int]]], int]:
    """Numbers of the replies in each row, by their prompts, and the length of rows: that one up to `most`, or to what
    the longest needs, with the fewest positions in all. In a row a prompt takes its length less 1, once.
    """
    if not lengths:
        return [], ROW_STEP
    needed = max(len(prompt) - 1 + length for prompt, length in zip(prompts, lengths, strict=True))
    each = list(dict.fromkeys(prompts))
    numbers = {prompt: number for number, prompt in enumerate(each)}
    asked, shared = [numbers[prompt] for prompt in prompts], [len(prompt) - 1 for prompt in each]
    filled = sum(lengths) + sum(shared)
    packs, length = fewest_positions(
        needed, most, filled, lambda length: _pack(asked, shared, lengths, length, random.Random(seed))
    )
    return [{each[prompt]: chosen for prompt, chosen in pack.items()} for pack in packs], length


def _pack(
    prompts: Sequence[int], shared: Sequence[int], lengths: Sequence[int], room: int, rng: random.Random
) -> list[dict[int, list[int]]]:
    """Best fit decreasing (Johnson 1973), one prompt after the other: into the row with least room left, of those with
    the prompt first. `shared`: what a prompt takes, once in a row.
    """
    replies: dict[int, list[int]] = {}
    for number in sorted(range(len(lengths)), key=lambda number: (-lengths[number], rng.random())):
        replies.setdefault(prompts[number], []).append(number)
    rows: list[dict[int, list[int]]] = []
    left: list[int] = []

    def tightest(among: Iterable[int], cost: int) -> int | None:
        return min(((left[row], row) for row in among if cost <= left[row]), default=(0, None))[1]

    for prompt, numbers in replies.items():
        having: list[int] = []  # rows with the prompt
        for number in numbers:
            cost = lengths[number]
            row = tightest(having, cost) if shared[prompt] else None
            if row is None:
                cost += shared[prompt]
                row = tightest(range(len(rows)), cost)
                if row is None:
                    row = len(rows)
                    rows.append({})
                    left.append(room)
                having.append(row)
            rows[row].setdefault(prompt, []).append(number)
            left[row] -= cost
    return rows


def _log_probs(model: Transformer, batch: Batch, threads: int) -> torch.Tensor:
    """What a model gives to the targets, [B, T], 0 where there are none."""
    result = torch.zeros(batch.tokens.shape)
    device = next(model.parameters()).device
    parts = micro_batches(batch, ALONE, device, model)  # as few at once as the training computes

    @torch.no_grad()
    def compute(part: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        log_p, counted_BT = target_log_probs(model, part.tokens, part.targets, part.documents, part.parents)
        return log_p.cpu(), counted_BT.cpu()

    row = 0
    with ThreadPoolExecutor(max(1, min(threads, len(parts))), "reference") as pool:
        for log_p, counted_BT in pool.map(compute, parts):
            result[row : row + len(counted_BT)][counted_BT] = log_p
            row += len(counted_BT)
    return result
