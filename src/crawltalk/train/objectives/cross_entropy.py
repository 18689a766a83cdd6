"""Cross entropy of the next token: pretraining and supervised fine-tuning."""

import torch
from torch import Tensor

from crawltalk.model.functions import LinearLoss
from crawltalk.model.transformer import Transformer
from crawltalk.train.batches import IGNORE_INDEX, Batch
from crawltalk.train.objectives import Figures


def cross_entropy(model: Transformer, batch: Batch) -> tuple[Tensor, Tensor, Figures]:
    """In nats, summed over the targets that are not IGNORE_INDEX, and how many those are."""
    return cross_entropy_of(model, model.states(batch.tokens, documents_BT=batch.documents), batch.targets)


def cross_entropy_of(
    model: Transformer, states_BTD: Tensor, targets_BT: Tensor
) -> tuple[Tensor, Tensor, Figures]:
    """The same, of final states that are known."""
    states_ND, targets_N = states_BTD.flatten(0, 1), targets_BT.flatten()
    counted = targets_N != IGNORE_INDEX
    if not bool(counted.all()):  # the head is a large part of a small model: spare it what is not counted
        states_ND, targets_N = states_ND[counted], targets_N[counted]
    learns = torch.is_grad_enabled()
    head_VD = model.head_weight if learns else model.head_weight.detach()  # spares its gradient
    total, _ = LinearLoss.apply(states_ND, head_VD, targets_N, model.logit_cap)
    return total, counted.sum(), {}
