"""Training models that joke, and models of what people find funny: the parts that experiments with jokes share."""

import copy
import dataclasses
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crawltalk import recipe
from crawltalk.chat.messages import Conversation, Message, Preference
from crawltalk.core.files import write_atomically
from crawltalk.core.types import Problem
from crawltalk.engine import Engine
from crawltalk.lab.experiment import Trial
from crawltalk.lab.jokes import MAX_TOKENS, PLACES, ask, chat, gold, is_sentence
from crawltalk.model.hf import load_model, load_reward_model, save_model
from crawltalk.model.reward import RewardModel, reward_model_of
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
from crawltalk.posttraining.dpo import REFERENCE, batches_of_pairs, reference_log_probs
from crawltalk.posttraining.pairs import Pair, pairs_that_fit
from crawltalk.posttraining.reinforce import Group, reinforce
from crawltalk.posttraining.reward import train_reward_model
from crawltalk.posttraining.rollouts import EngineRollouts, Rollout
from crawltalk.recipe import Optim, Reinforce
from crawltalk.recipe.dpo import dpo_optim
from crawltalk.recipe.optim import derive_optim
from crawltalk.recipe.reward import reward_optim
from crawltalk.rewards.scored import RewardJudge
from crawltalk.rewards.verdict import Judge
from crawltalk.run.stage import STATE
from crawltalk.train.batches import packed_rows
from crawltalk.train.loop import TrainingOptions, fit
from crawltalk.train.objectives.cross_entropy import cross_entropy
from crawltalk.train.objectives.preference import preference

PROBLEMS = [ask(place) for place in PLACES]
SAMPLES = 32
"""Jokes about each place in a step of reinforcement."""
CHECKED = 72
"""Jokes about each place that a checkpoint is judged by."""


def shape() -> Shape:
    """The shape of all models: 0.14 M parameters."""
    return Shape(
        vocab_size=chat().tokenizer.vocab_size,
        layers=2, width=64, heads=4, kv_heads=4, head_dim=16, mlp=192, context=256,
    )  # fmt: skip


@dataclass(frozen=True)
class Joke:
    """A joke of a model."""

    place: str
    text: str
    log_prob: float
    """The sum over its tokens, at temperature 1."""
    rollout: Rollout

    @property
    def gold(self) -> float:
        """How funny people find it."""
        return gold(self.place, self.text)


def options(trial: Trial, out: Path, steps: int, optim: Optim, **changes: Any) -> TrainingOptions:
    """Of a training in `out`, in fp32: the models are tiny, and sampler and trainer agree."""
    machine = dataclasses.replace(trial.machine, dtype="float32")
    return TrainingOptions(
        steps=steps, optim=optim, machine=machine, progress=trial.progress, out=out, save_every=50, **changes
    )


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """What a JSON file holds; made and written first if there is none, so that an interrupted trial continues."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(make()).encode())
    return json.loads(path.read_bytes())


def writer(
    trial: Trial, name: str, jokes: Sequence[Conversation], *, base: Transformer | None = None
) -> Transformer:
    """A model that imitates jokes, 6 epochs of them from fresh weights or `base`; in the folder `name`."""
    out = trial.out / name
    if (out / "config.json").exists():
        return load_model(out)
    rows = [chat().render(joke.messages) for joke in jokes]
    batches, per_epoch = packed_rows(rows, 256, 2048, trial.seed)
    if base is None:
        model = Transformer(shape())
        model.initialize(trial.seed)
    else:
        model = copy.deepcopy(base)
    fit(
        model,
        batches,
        cross_entropy,
        options(trial, out, 6 * per_epoch, derive_optim(Optim(), shape().width, 0.02)),
    )
    save_model(model, out, eos=sorted(chat().stop_ids))
    return load_model(out)


def judge_of(trial: Trial, name: str, base: Transformer, preferences: Sequence[Preference]) -> RewardModel:
    """A reward model that starts from the writer `base` and learns `preferences`, 3 epochs; in the folder `name`."""
    out = trial.out / name
    if not (out / "config.json").exists():
        pairs = fitting(trial, preferences)
        config = recipe.Reward(optim=Optim(muon_lr=0.01, adamw_lr=0.002))
        model = reward_model_of(copy.deepcopy(base), trial.seed)
        steps = 3 * -(-len(pairs) // config.batch_pairs)
        train_reward_model(
            model, pairs, config, options(trial, out, steps, reward_optim(config, shape().width)), trial.seed
        )
        save_model(model, out, eos=sorted(chat().stop_ids), pad=chat().tokenizer.eot)
    return load_reward_model(out)


def preferring(trial: Trial, name: str, base: Transformer, preferences: Sequence[Preference]) -> Transformer:
    """The writer `base` after direct preference optimization, 2 epochs."""
    out, config = trial.out / name, recipe.Dpo()
    if not (out / "config.json").exists():
        pairs = fitting(trial, preferences)
        path = out / STATE / REFERENCE
        reference = reference_log_probs(base, pairs, path, base.embedding.weight.dtype, trial.progress)
        batches = batches_of_pairs(pairs, reference, config.batch_pairs, trial.seed)
        steps = 2 * -(-len(pairs) // config.batch_pairs)
        model = copy.deepcopy(base)
        fit(
            model,
            batches,
            preference(config.beta),
            options(trial, out, steps, dpo_optim(config, shape().width)),
        )
        save_model(model, out, eos=sorted(chat().stop_ids))
    return load_model(out)


def fitting(trial: Trial, preferences: Sequence[Preference]) -> list[Pair]:
    """Preferences as token ids."""
    return pairs_that_fit(preferences, chat(), shape().context, trial.progress)[0]


def liking(model: RewardModel) -> Judge:
    """A reward model as a judge of jokes."""
    return RewardJudge(model, chat())


def scores(judge: Judge, jokes: Sequence[tuple[str, str]]) -> list[float]:
    """What a judge gives to jokes, each (place, joke)."""
    verdicts = judge([ask(place) for place, _ in jokes], [joke for _, joke in jokes])
    return [math.nan if verdict.reward is None else verdict.reward for verdict in verdicts]


class Teller:
    """Where models tell jokes: one engine for all of them."""

    def __init__(self, model: Transformer) -> None:
        self.engine = Engine(copy.deepcopy(model), chat().tokenizer, renderer=chat())
        self.rollouts = EngineRollouts(self.engine, prompt_of, MAX_TOKENS)

    def jokes(self, model: Transformer, each: int, seed: int) -> list[Joke]:
        """So many jokes about each place."""
        self.rollouts.update_weights(model)
        groups = self.rollouts(PROBLEMS, range(len(PROBLEMS)), each, seed)
        return [
            Joke(problem.answer, one.text, sum(one.log_probs), one)
            for problem, group in zip(PROBLEMS, groups, strict=True)
            for one in group
        ]

    def log_probs(self, model: Transformer, jokes: Sequence[Joke]) -> np.ndarray:
        """What another model gives to jokes."""
        self.rollouts.update_weights(model)
        rows = self.engine.logprobs([(joke.rollout.prompt, joke.rollout.reply) for joke in jokes])
        return np.array([sum(row) for row in rows])


def prompt_of(problem: Problem) -> list[int]:
    """The question, with the assistant's turn opened."""
    return chat().encode_chat([Message("user", problem.prompt)], add_generation_prompt=True)


def pairs_among(jokes: Sequence[Joke], count: int, rng: random.Random) -> list[tuple[str, str, str]]:
    """Two jokes about one place, so often."""
    of_place = {place: [joke.text for joke in jokes if joke.place == place] for place in PLACES}
    places = [PLACES[number % len(PLACES)] for number in range(count)]
    drawn = ((place, rng.sample(of_place[place], 2)) for place in places)
    return [(place, one, other) for place, (one, other) in drawn]


def optimise(
    trial: Trial,
    name: str,
    start: Transformer,
    judge: Judge,
    *,
    kl: float,
    steps: int,
    every: int,
    others: Sequence[Judge] = (),
) -> list[dict[str, Any]]:
    """Reinforce `start` against a judge, and look at the policy every so many steps.

    Each row has `step`; `kl`, how far the policy is from `start`: nats a joke, measured; `proxy`, the mean reward;
    `others`, that of further judges; `gold`; `sentences`, the share of jokes that are such; and `jokes`, the
    texts by place. Training sees only `proxy`.
    """
    out, teller = trial.out / name, Teller(start)

    def look(done: int, model: Transformer) -> dict[str, Any]:
        jokes = teller.jokes(model, CHECKED, seed=10_000 + done)
        apart = np.array([joke.log_prob for joke in jokes]) - teller.log_probs(start, jokes)
        told = [(joke.place, joke.text) for joke in jokes]
        golds = [joke.gold for joke in jokes]
        return {
            "kl": round(float(apart.mean()), 4),
            "proxy": _mean(scores(judge, told)),
            "others": [_mean(scores(other, told)) for other in others],
            "gold": _mean(golds),
            "sentences": _mean([float(is_sentence(joke.text)) for joke in jokes]),
            "jokes": {place: [text for where, text in told if where == place] for place in PLACES},
        }

    def train() -> list[dict[str, Any]]:
        config = Reinforce(steps=steps, groups=len(PROBLEMS), samples=SAMPLES, max_tokens=MAX_TOKENS, kl=kl)
        optim = Optim(muon_lr=0.002, adamw_lr=0.001, cooldown=0.0, spike=0.0)
        settings = options(trial, out, steps, optim, evaluate_every=every)
        first = {"step": -1, **look(0, start)}
        model = copy.deepcopy(start)
        reinforce(
            model,
            teller.rollouts,
            draw_problems,
            judge,
            config,
            settings,
            trial.seed,
            evaluate=look,
        )
        rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        return [{**row, "step": row["step"] + 1} for row in [first, *rows] if "jokes" in row]

    def draw_problems(_: int, __: Sequence[Group]) -> list[Problem]:
        return PROBLEMS

    return kept(out / "looks.json", train)


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)
