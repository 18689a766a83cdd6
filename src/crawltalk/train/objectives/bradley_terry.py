"""Reward modelling (Bradley and Terry 1952; Ouyang et al. 2022, equation 1): the probability that one of two replies is
preferred is the logistic function of the difference of their scores.

A row of a batch is a pair: `tokens` of the conversation with the chosen reply, and among the extras those with the
rejected one (`rejected`) and the lengths of both (`lengths`, [B, 2]). There are no targets.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from crawltalk.model.reward import RewardModel
from crawltalk.train.batches import IGNORE_INDEX, Batch
from crawltalk.train.objectives import Figures, Objective

LENGTHS = 16
"""Rows are cut behind the last token to a multiple of this: so few products have shapes of their own."""


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
        return losses.sum(), len(batch), figures

    return objective


def pair_scores(model: RewardModel, batch: Batch) -> Tensor:
    """The scores of the chosen and the rejected replies, [B, 2] fp32."""
    lengths = batch.extras["lengths"].T.reshape(-1)
    used = min(batch.tokens.shape[1], -(-int(lengths.max()) // LENGTHS) * LENGTHS)
    tokens = torch.cat((batch.tokens, batch.extras["rejected"]))[:, :used]
    return model.scores(tokens, lengths).view(2, -1).T


def comparisons_of(chosen: Sequence[Sequence[int]], rejected: Sequence[Sequence[int]], context: int) -> Batch:
    """A batch of pairs of token ids, none of them longer than the `context`."""
    sizes = [[len(ids) for ids in replies] for replies in (chosen, rejected)]
    length = min(context, -(-max(map(max, sizes)) // LENGTHS) * LENGTHS)
    tokens, others = _rows(chosen, length), _rows(rejected, length)
    extras = {"rejected": others, "lengths": torch.tensor(sizes).T}
    return Batch(tokens, torch.full_like(tokens, IGNORE_INDEX), extras=extras)


def _rows(replies: Sequence[Sequence[int]], length: int) -> Tensor:
    tokens = torch.zeros((len(replies), length), dtype=torch.int64)
    for row, ids in enumerate(replies):
        tokens[row, : len(ids)] = torch.tensor(ids)
    return tokens
