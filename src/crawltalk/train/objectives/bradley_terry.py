"""Reward modelling (Bradley and Terry 1952; Ouyang et al. 2022, equation 1): the probability that one of two replies is
preferred is the logistic function of the difference of their scores.

Pairs of conversations share the rows of a batch, and the beginning that both conversations of a pair have stands there
once. Among the extras are the places of their last tokens in the row, of the chosen one and of the rejected one
(`lasts`, [B, pairs, 2]; -1: there is no such pair). There are no targets.
"""

import random
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from crawltalk.model.reward import RewardModel
from crawltalk.train.batches import IGNORE_INDEX, Batch, fewest_positions, pack
from crawltalk.train.objectives import Figures, Objective


def bradley_terry(centering: float = 0.0) -> Objective:
    """The negative log-likelihood of the preferences, summed over pairs, and how many those are. `centering` times the
    square of a pair's summed scores is added, which keeps scores around 0 (Eisenstein et al. 2023, appendix).

    Figures, by the names of TRL: `accuracy` (how often the chosen reply has the higher score), `margin` (the difference
    of the scores) and `mean_reward`.
    """

    def objective(model: RewardModel, batch: Batch) -> tuple[Tensor, Tensor | int, Figures]:
        chosen, rejected = pair_scores(model, batch).unbind(1)
        losses = -F.logsigmoid(chosen - rejected) + centering * (chosen + rejected).square()
        figures = {
            "accuracy": (chosen > rejected).sum(),
            "margin": (chosen - rejected).detach().sum(),
            "mean_reward": (chosen + rejected).detach().sum() / 2,
        }
        return losses.sum(), len(losses), figures

    return objective


def pair_scores(model: RewardModel, batch: Batch) -> Tensor:
    """The scores of the chosen and the rejected replies, [pairs, 2] fp32, row by row."""
    lasts = batch.extras["lasts"]
    row, pair = (lasts[..., 0] >= 0).nonzero(as_tuple=True)
    places, rows = lasts[row, pair].flatten(), row.repeat_interleave(2)
    return model.scores(batch.tokens, rows, places, batch.documents, batch.parents).view(-1, 2)


def comparisons_of(pairs: Sequence[tuple[Sequence[int], Sequence[int]]], row: int) -> Batch:
    """A batch of pairs of token ids, chosen and rejected, in rows of `row` positions at most, if no pair needs more."""
    shared = [_shared(*pair) for pair in pairs]
    sizes = [len(up) + len(down) - both for (up, down), both in zip(pairs, shared, strict=True)]
    packs, length = fewest_positions(
        max(sizes), row, sum(sizes), lambda length: pack(sizes, length, random.Random(0))
    )
    tokens = torch.zeros((len(packs), length), dtype=torch.int64)
    documents, parents = (torch.full_like(tokens, -1) for _ in range(2))
    lasts = torch.full((len(packs), max(map(len, packs)), 2), -1)
    for place, chosen in enumerate(packs):
        start = 0
        for index, number in enumerate(chosen):
            (up, down), both = pairs[number], shared[number]
            for document, ids in enumerate((up[:both], up[both:], down[both:]), 3 * index):
                end = start + len(ids)
                tokens[place, start:end], documents[place, start:end] = torch.tensor(ids), document
                if document > 3 * index:
                    lasts[place, index, document - 3 * index - 1] = end - 1
                    parents[place, start:end] = 3 * index if both else -1
                start = end
    targets = torch.full_like(tokens, IGNORE_INDEX)
    return Batch(tokens, targets, documents, {"lasts": lasts}, parents=parents)


def _shared(chosen: Sequence[int], rejected: Sequence[int]) -> int:
    """Tokens that both begin with; each keeps one of its own."""
    most = min(len(chosen), len(rejected)) - 1
    return next((at for at in range(most) if chosen[at] != rejected[at]), most)
