"""Log-probabilities of targets, for objectives that need them one by one."""

import torch
from torch import Tensor

from crawltalk.model.functions import LinearLogProbs
from crawltalk.model.transformer import Transformer
from crawltalk.train.batches import IGNORE_INDEX

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
    used = int(counted_BT.any(0).nonzero().max()) + 1 if bool(counted_BT.any()) else 1
    length = min(tokens_BT.shape[1], -(-used // LENGTHS) * LENGTHS)
    if (
        parents_BT is None
    ):  # else a row may be longer than the context: positions are numbered within documents
        length = min(length, model.shape.context)
    tokens_BT, targets_BT, within_BT = (x[:, :length] for x in (tokens_BT, targets_BT, counted_BT))
    documents_BT, parents_BT = (None if x is None else x[:, :length] for x in (documents_BT, parents_BT))
    states_ND = model.states(tokens_BT, documents_BT=documents_BT, parents_BT=parents_BT)[within_BT]
    head_VD = model.head_weight if torch.is_grad_enabled() else model.head_weight.detach()
    log_p: Tensor = LinearLogProbs.apply(states_ND, head_VD, targets_BT[within_BT], model.logit_cap)
    return log_p, counted_BT
