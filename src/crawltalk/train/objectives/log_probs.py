"""Log-probabilities of targets, for objectives that need them one by one."""

from collections.abc import Callable

import torch
from torch import Tensor

from crawltalk.model.functions import LinearLogProbs, LinearLoss
from crawltalk.model.transformer import Transformer
from crawltalk.train.batches import IGNORE_INDEX, Batch

LENGTHS = 64
"""Rows are cut behind their last target, to a multiple of this: so few products have shapes of their own."""


def target_log_probs(
    model: Transformer,
    tokens_BT: Tensor,
    targets_BT: Tensor,
    documents_BT: Tensor | None = None,
    parents_BT: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(the log-probabilities of all targets that are counted, [N] fp32; which those are, [B, T])."""
    counted_BT = targets_BT != IGNORE_INDEX
    states_ND, head_VD = _states(model, tokens_BT, counted_BT, documents_BT, parents_BT)
    log_p: Tensor = LinearLogProbs.apply(states_ND, head_VD, targets_BT[counted_BT], model.logit_cap)
    return log_p, counted_BT


def losses_of_targets(
    model: Transformer, batch: Batch, losses: Callable[[Tensor, slice], Tensor]
) -> tuple[Tensor, Tensor]:
    """(the summed losses of all targets that are counted; their log-probabilities, [N] fp32, for figures only). The
    logits are computed once, where `target_log_probs` has to compute them again in the backward pass.

    `losses` gets the log-probabilities of some targets, and which of the N those are.
    """
    counted_BT = batch.targets != IGNORE_INDEX
    states_ND, head_VD = _states(model, batch.tokens, counted_BT, batch.documents, batch.parents)
    return LinearLoss.apply(states_ND, head_VD, batch.targets[counted_BT], model.logit_cap, losses)


def _states(
    model: Transformer,
    tokens_BT: Tensor,
    counted_BT: Tensor,
    documents_BT: Tensor | None,
    parents_BT: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The states behind which the targets stand, [N, D], and the head."""
    used = int(counted_BT.any(0).nonzero().max()) + 1 if bool(counted_BT.any()) else 1
    length = min(tokens_BT.shape[1], -(-used // LENGTHS) * LENGTHS)
    if (
        parents_BT is None
    ):  # else a row may be longer than the context: positions are numbered within documents
        length = min(length, model.shape.context)
    documents_BT, parents_BT = (None if x is None else x[:, :length] for x in (documents_BT, parents_BT))
    states_BTD = model.states(tokens_BT[:, :length], documents_BT=documents_BT, parents_BT=parents_BT)
    head_VD = model.head_weight if torch.is_grad_enabled() else model.head_weight.detach()
    return states_BTD[counted_BT[:, :length]], head_VD
