"""What a training minimises: one objective a file, each a function that `fit` is given.

`objective(model, batch)` returns (the sum of the losses, their number, further figures). The loop calls it
for each micro-batch on each rank, adds up all three, and divides the sums by the count. So the loss of a row must
not depend on the other rows. Figures are sums, too; their means stand in log.jsonl beside the loss.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from crawltalk.train.batches import Batch

Figures = Mapping[str, Tensor | float]
Objective = Callable[[Any, Batch], tuple[Tensor, Tensor | int, Figures]]
"""(model, batch) -> (sum of losses, a scalar that `backward` starts from; count; sums of further figures)."""
