"""The stage of the reward model: the last assistant, with a score in the place of its head, learns which of two replies
is preferred (Ouyang et al. 2022, section 3.5).

What it is worth is measured on pairs of prompts that it has not seen: how many it ranks as people did, beside the
most that any model could where people contradict each other, and whether its probabilities are right. And it is asked
for nonsense that it likes, which is what a policy would find that is optimised against it for long.
"""

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from crawltalk import recipe
from crawltalk.chat.messages import Preference
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import BadInput
from crawltalk.core.files import write_atomically
from crawltalk.core.jsonl import write_jsonl
from crawltalk.core.statistics import share_stderr
from crawltalk.model.adapters import add_adapters, attach, merge_adapters
from crawltalk.model.config import read_config, shape_of
from crawltalk.model.hf import load_model, save_model
from crawltalk.model.reward import RewardModel, reward_model_of
from crawltalk.posttraining.pairs import Pair, draw_pairs, pairs_that_fit, read_pairs
from crawltalk.posttraining.tuning import CHECKED_ROWS, TOLERANCE, end_of_reply, starting_model
from crawltalk.recipe import Lora
from crawltalk.recipe.reward import reward_optim
from crawltalk.rewards.nonsense import climb, repetitions
from crawltalk.run.stage import Job, Metrics
from crawltalk.train.batches import Batch, Batches
from crawltalk.train.dropout import with_dropout
from crawltalk.train.loop import TrainingOptions, beginning, fit, longest_row
from crawltalk.train.objectives.bradley_terry import bradley_terry, comparisons_of
from crawltalk.train.ranks import ALONE, Ranks

FIGURES = "reward.json"
"""What the reward model is worth, in the folder of the stage."""
MIN_PROMPTS = 20
"""With fewer prompts pairs are held out, and not all pairs of a prompt together."""
MIN_REPEATED = 30
"""Pairs that were judged more than once, from which on label noise is estimated."""
BINS = 10
"""Of the reliability diagram."""
SURE, SATURATED = 0.99, 0.5
"""A model is saturated if it gives at least this share of pairs a probability of `SURE` and is wrong more often."""
OVERRATED = 0.9
"""Nonsense that scores above this share of the chosen replies is reported."""
SEARCHED = 100
"""Tokens that the search for nonsense puts together."""
CONSTANT = 1e-3
"""Standard deviation of scores below which they tell nothing."""


class Bin(msgspec.Struct, frozen=True):
    """Held-out pairs about which the model is about equally sure."""

    pairs: int
    confidence: float
    """Mean probability of the reply that it prefers."""
    accuracy: float
    """How often people preferred that one, too."""


class Nonsense(msgspec.Struct, frozen=True):
    """A reply that a search found, to the first held-out prompt."""

    text: str
    score: float
    share_of_chosen_below: float
    """Share of the held-out chosen replies, to their own prompts, that score lower."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What a reward model is worth on held-out pairs."""

    pairs: int
    accuracy: float
    """Share of pairs whose chosen reply has the higher score; of equal scores the half."""
    standard_error: float
    ceiling: float | None
    """The accuracy of a model that knows what is better, given the noise of the labels; None where that is unknown."""
    log_loss: float
    """Mean negative log-likelihood, nats; ln 2 is a guess."""
    ece: float
    """Expected calibration error: the mean distance of confidence and accuracy (Guo et al. 2017), of `reliability`."""
    reliability: list[Bin]
    deviation: float
    """Standard deviation of the scores."""
    sure: float
    """Share of pairs with a confidence of `SURE` or more."""
    complaint: str | None
    """What is wrong with it, if anything."""
    nonsense: Nonsense | None = None


def reward(job: Job[recipe.Reward]) -> Metrics:
    """Read the preferences, train and measure; writes an HF folder that `AutoModelForSequenceClassification` loads,
    reward.json, preferences.jsonl (trained on) and held_out.jsonl.
    """
    config, ranks = job.config, Ranks.join(job.machine, str(job.out))
    if not 0 < config.held_out < 1:
        raise BadInput(
            f"reward.held_out = {config.held_out:g}: it is a share of the prompts, more than 0, less than 1"
        )
    folder, chat = starting_model(job, "assistant")
    shape = shape_of(read_config(folder), folder)
    preferences, refused = read_pairs(config.data, job.progress, "reward")
    pairs, used = pairs_that_fit(preferences, chat, shape.context, job.progress)
    held_out = hold_out(used, config.held_out, job.seed)
    learned, measured = (
        [pair for pair, out in zip(pairs, held_out, strict=True) if out == side] for side in (0, 1)
    )
    options = TrainingOptions(
        steps=max(1, round(config.epochs * -(-len(learned) // config.batch_pairs))),
        optim=reward_optim(config, shape.width),
        machine=job.machine,
        progress=job.progress,
        out=job.out,
        save_every=config.save_every,
        resume_from=config.resume_from,
    )
    model = load_for_scoring(folder, config.lora, options, job.seed, ranks)
    metrics = train_reward_model(model, learned, config, options, job.seed, ranks)
    ranks.leave()
    if ranks.rank > 0:
        return metrics
    for name, side in (("preferences.jsonl", 0), ("held_out.jsonl", 1)):
        write_jsonl(job.out / name, [row for row, out in zip(used, held_out, strict=True) if out == side])
    if refused:
        write_jsonl(job.out / "refused.jsonl", refused)
    model = model.cpu()
    if config.lora.rank:
        model = _merged(model, folder, [pair.chosen.ids for pair in learned[:CHECKED_ROWS]])
    noise = config.label_noise if config.label_noise is not None else label_noise(used)
    figures = measure(model, measured, noise)
    figures = msgspec.structs.replace(figures, nonsense=find_nonsense(model, measured, chat, job.seed))
    write_atomically(job.out / FIGURES, msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n")
    if figures.complaint:
        job.progress.warn(figures.complaint)
    if (found := figures.nonsense) and found.share_of_chosen_below > OVERRATED:
        job.progress.note(
            f"nonsense that scores above {found.share_of_chosen_below:.0%} of the held-out chosen replies: "
            f"{found.text!r:.100}"
        )
    save_reward_model(model, job.out, chat, pairs)
    return {
        **metrics,
        "pairs": len(learned),
        "held_out_pairs": figures.pairs,
        "accuracy": figures.accuracy,
        **({} if figures.ceiling is None else {"ceiling": figures.ceiling}),
        "ece": figures.ece,
    }


def hold_out(preferences: Sequence[Preference], share: float, seed: int) -> list[bool]:
    """Which pairs are not learned: those of a share of the prompts, so that nothing measured was seen; one prompt at
    least. Raises BadInput if nothing would be left to learn.
    """
    prompts = [msgspec.json.encode(row.messages) for row in preferences]
    if len(set(prompts)) < MIN_PROMPTS:
        prompts = [
            b"".join([prompt, *sorted(_sides(row))]) for prompt, row in zip(prompts, preferences, strict=True)
        ]
    distinct = sorted(set(prompts))
    count = max(1, round(share * len(distinct)))
    if count >= len(distinct):
        raise BadInput(
            f"{len(preferences)} pairs are too few to learn from some and to measure on others; add some"
        )
    chosen = set(random.Random(f"held out {seed}").sample(distinct, count))
    return [prompt in chosen for prompt in prompts]


def _sides(row: Preference) -> tuple[bytes, bytes]:
    return msgspec.json.encode(row.chosen), msgspec.json.encode(row.rejected)


def label_noise(preferences: Sequence[Preference]) -> float | None:
    """The share of the labels that is wrong, at least, from pairs that were judged more than once: who errs with
    probability e independently contradicts another with 2e(1 - e). None where too few were.
    """
    judged: dict[bytes, list[bool]] = defaultdict(list)
    for row in preferences:
        sides = _sides(row)
        judged[b"".join([msgspec.json.encode(row.messages), *sorted(sides)])].append(sides[0] < sides[1])
    repeated = [(sum(votes), len(votes)) for votes in judged.values() if len(votes) > 1]
    if len(repeated) < MIN_REPEATED:
        return None
    # of all pairs of votes, those that differ
    differ = sum(yes * (votes - yes) / (votes * (votes - 1) / 2) for yes, votes in repeated) / len(repeated)
    return (1 - math.sqrt(max(0.0, 1 - 2 * differ))) / 2


def load_for_scoring(
    folder: Path, lora: Lora, options: TrainingOptions, seed: int, ranks: Ranks
) -> RewardModel:
    """A reward model with the weights of a language model, in fp32; with adapters, in the dtype that it computes in.
    What turns the last state into a score is always trained.
    """
    if not lora.rank:
        return reward_model_of(load_model(folder), seed)
    if options.machine.shard:
        raise BadInput("adapters are small, and trained unsharded: leave machine.shard out, or lora.rank")
    _, dtype, _ = beginning(options, ranks)
    model = reward_model_of(load_model(folder, dtype=dtype), seed)
    add_adapters(model, lora, seed)
    model.score.requires_grad_(True)
    return model


def train_reward_model(
    model: RewardModel,
    pairs: Sequence[Pair],
    config: recipe.Reward,
    options: TrainingOptions,
    seed: int,
    ranks: Ranks = ALONE,
) -> Metrics:
    """Train `model` in place on pairs that fit its context."""
    batches = batches_of_comparisons(pairs, config.batch_pairs, seed, longest_row(model))
    batches, objective = with_dropout(batches, bradley_terry(config.centering), config.lora, seed)
    return fit(model, batches, objective, options, ranks=ranks)


def batches_of_comparisons(pairs: Sequence[Pair], batch_pairs: int, seed: int, row: int) -> Batches:
    """The pairs as `draw_pairs` says, in rows of `row` positions at most, if no pair needs more."""

    def batch(step: int) -> Batch:
        drawn = [pairs[number] for number in draw_pairs(pairs, batch_pairs, seed, step)]
        return comparisons_of([(pair.chosen.ids, pair.rejected.ids) for pair in drawn], row)

    return batch


def measure(model: RewardModel, pairs: Sequence[Pair], noise: float | None = None) -> Figures:
    """What the model is worth on pairs that it has not learned, of whose labels the share `noise` is wrong. Raises
    BadInput for scores that are no numbers.
    """
    scores = model.scores_of([reply.ids for pair in pairs for reply in pair]).double().view(-1, 2).numpy()
    if not np.isfinite(scores).all():
        raise BadInput(
            "the reward model gives scores that are no numbers; lower the rates: --reward.optim.muon_lr 0.0005"
        )
    margins = scores[:, 0] - scores[:, 1]
    right = np.where(margins == 0, 0.5, margins > 0)
    confidence = 1 / (1 + np.exp(-np.abs(margins)))
    reliability = _reliability(confidence, right)
    accuracy, sure = float(right.mean()), confidence >= SURE
    figures = Figures(
        pairs=len(pairs),
        accuracy=accuracy,
        standard_error=share_stderr(accuracy, len(pairs)),
        ceiling=None if noise is None else 1 - noise,
        log_loss=float(np.logaddexp(0, -margins).mean()),
        ece=sum(one.pairs * abs(one.confidence - one.accuracy) for one in reliability) / len(pairs),
        reliability=reliability,
        deviation=float(scores.std()),
        sure=float(sure.mean()),
        complaint=None,
    )
    return msgspec.structs.replace(figures, complaint=_complaint(figures, right[sure]))


def find_nonsense(model: RewardModel, pairs: Sequence[Pair], chat: ChatRenderer, seed: int) -> Nonsense:
    """What a short hill climb finds, from the best of some words that are repeated, within tokens of the replies."""
    chosen = [pair.chosen for pair in pairs]
    rng = random.Random(f"nonsense {seed}")
    ids, mask = chosen[0]
    first, last = (
        mask.index(True),
        len(mask) - 1 - mask[::-1].index(True),
    )  # of the reply; the last one ends it
    words = sorted({token for reply in chosen for token, learned in zip(*reply, strict=True) if learned})
    words = [token for token in words if token not in chat.stop_ids] or words
    words = rng.sample(words, min(SEARCHED, len(words)))

    def rate(replies: Sequence[Sequence[int]]) -> list[float]:
        return model.scores_of([[*ids[:first], *reply, *ids[last:]] for reply in replies]).tolist()

    longest = max(1, min(24, model.shape.context - first - (len(ids) - last)))
    start = repetitions(rate, words, min(3, longest))[0].reply
    found = climb(rate, start, words, rng, rounds=12, width=24, longest=longest)
    usual = model.scores_of([reply.ids for reply in chosen]).numpy()
    below = float((usual < found.score).mean())
    return Nonsense(chat.tokenizer.decode(found.reply), round(found.score, 4), round(below, 4))


def _reliability(confidence: np.ndarray, right: np.ndarray) -> list[Bin]:
    numbers = np.minimum((confidence - 0.5) * 2 * BINS, BINS - 1).astype(int)
    return [
        Bin(int(here.sum()), float(confidence[here].mean()), float(right[here].mean()))
        for number in range(BINS)
        if (here := numbers == number).any()
    ]


def _complaint(figures: Figures, right_where_sure: np.ndarray) -> str | None:
    if figures.deviation < CONSTANT:
        return "the reward model gives all replies the same score: it has learned nothing; give it more pairs or epochs"
    if figures.sure >= SATURATED and right_where_sure.mean() < SURE - 2 * figures.standard_error:
        return (
            f"the reward model is saturated: it is sure ({SURE:.0%} and more) of {figures.sure:.0%} of the held-out "
            f"pairs, and right about {right_where_sure.mean():.0%} of these; train fewer epochs, or with lower rates"
        )
    return None


def _merged(model: RewardModel, base: Path, rows: Sequence[list[int]]) -> RewardModel:
    """`base` in fp32 with the adapters and the score of `model`. Raises BadInput if merging changes scores."""
    whole = reward_model_of(load_model(base))
    whole.score = model.score
    attach(whole, model)
    apart = whole.scores_of(rows)
    merge_adapters(whole)
    together = whole.scores_of(rows)
    change = float((together - apart).abs().max())
    if not change <= TOLERANCE * max(1.0, float(apart.abs().max())):  # not a number: neither
        raise BadInput(
            f"merging the adapter changes scores by {change:.4f}, so the merged model would be another one; train with "
            "a lower rate: --reward.lora.lr 0.0001"
        )
    return whole


def save_reward_model(model: RewardModel, out: Path, chat: ChatRenderer, pairs: Sequence[Pair]) -> None:
    """Write the model with its tokenizer and chat format. Its padding is a token that ends none of the `pairs`."""
    last = {reply.ids[-1] for pair in pairs for reply in pair}
    tokens = (chat.tokenizer.eot, *chat.tokenizer.special_tokens.values(), *range(chat.tokenizer.vocab_size))
    chat.save(out)
    save_model(model, out, eos=end_of_reply(chat), pad=next(token for token in tokens if token not in last))
