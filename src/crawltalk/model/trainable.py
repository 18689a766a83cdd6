"""What the training loop asks of a model."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

Batch = TypeVar("Batch")
Result = TypeVar("Result")


class Trainable(nn.Module):
    """A module that `train.loop.fit` can train: its trained weights are fp32, and its first parameter has the dtype
    that it computes in.
    """

    width: int
    """Values in a hidden state."""
    activation_checkpointing = False
    """Whether activations are recomputed in the backward pass (Chen et al. 2016), where the model can do that."""
    micro_batch_tokens: int | None = None
    """Positions of a batch in one forward and backward pass of a thread; None: as the loop thinks best for a
    Transformer.
    """

    def compute(self, objective: Callable[[Any, Batch], Result], batch: Batch) -> Result:
        """The objective of a batch. Training calls it so, because sharded weights are gathered around a method
        of the model.
        """
        return objective(self, batch)
