"""Direct preference optimization (Rafailov et al. 2023): the chosen reply of a pair becomes more likely than the
rejected one, both measured from a reference model.

A row of a batch is a pair: `tokens` and `targets` of the chosen reply, and among the extras those of the rejected one
(`rejected`, `rejected_targets`) and the log-probabilities that the reference gives to both (`reference`, [B, 2]).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from crawltalk.model.transformer import Transformer
from crawltalk.train.batches import IGNORE_INDEX, Batch
from crawltalk.train.objectives import Figures, Objective
from crawltalk.train.objectives.log_probs import LENGTHS, target_log_probs


def preference(beta: float, label_smoothing: float = 0.0) -> Objective:
    """The sigmoid loss of DPO, summed over pairs, and how many those are. `label_smoothing` is the share of pairs whose
    preference is taken to be wrong (Mitchell 2023).

    Figures, by the names of TRL: `rewards/chosen` and `rewards/rejected` (beta times the log-ratios to the reference),
    `rewards/margins` (their difference) and `rewards/accuracies` (how often it is above 0).
    """

    def objective(model: Transformer, batch: Batch) -> tuple[Tensor, Tensor | int, Figures]:
        log_p = pair_log_probs(model, batch)
        chosen, rejected = (beta * (log_p - batch.extras["reference"].to(log_p))).unbind(1)
        margins = chosen - rejected
        right, wrong = F.logsigmoid(margins), F.logsigmoid(-margins)
        losses = -(1 - label_smoothing) * right - label_smoothing * wrong
        figures = {
            "rewards/chosen": chosen.detach().sum(),
            "rewards/rejected": rejected.detach().sum(),
            "rewards/margins": margins.detach().sum(),
            "rewards/accuracies": (margins > 0).sum(),
        }
        return losses.sum(), len(batch), figures

    return objective


def pair_log_probs(model: Transformer, batch: Batch) -> Tensor:
    """The log-probabilities of the chosen and the rejected replies, [B, 2], fp32."""
    tokens = torch.cat((batch.tokens, batch.extras["rejected"]))
    targets = torch.cat((batch.targets, batch.extras["rejected_targets"]))
    return _log_probs(model, tokens, targets).view(2, -1).T


def _log_probs(model: Transformer, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """The log-probability of all targets of each row that are counted, [B]."""
    log_p, counted_BT = target_log_probs(model, tokens_BT, targets_BT)
    return log_p.new_zeros(counted_BT.shape).masked_scatter(counted_BT, log_p).sum(1)


def pairs_of(
    chosen: Sequence[tuple[list[int], list[bool]]],
    rejected: Sequence[tuple[list[int], list[bool]]],
    reference: Tensor,
) -> Batch:
    """A batch of pairs of (ids, loss mask), one each a row; `reference` is [B, 2]."""
    longest = max(len(ids) for ids, _ in (*chosen, *rejected)) - 1
    length = -(-longest // LENGTHS) * LENGTHS
    tokens, targets = _rows(chosen, length)
    rejected_tokens, rejected_targets = _rows(rejected, length)
    extras = {"rejected": rejected_tokens, "rejected_targets": rejected_targets, "reference": reference}
    return Batch(tokens, targets, extras=extras)


def _rows(replies: Sequence[tuple[list[int], list[bool]]], length: int) -> tuple[Tensor, Tensor]:
    """Tokens and targets, [B, `length`]; no position behind a reply is counted."""
    tokens = torch.zeros((len(replies), length), dtype=torch.int64)
    targets = torch.full((len(replies), length), IGNORE_INDEX)
    for row, (ids, loss_mask) in enumerate(replies):
        tokens[row, : len(ids) - 1] = torch.tensor(ids[:-1])
        learned = torch.where(torch.tensor(loss_mask[1:]), torch.tensor(ids[1:]), IGNORE_INDEX)
        targets[row, : len(ids) - 1] = learned
    return tokens, targets
