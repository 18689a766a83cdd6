"""How much each training example made a text likelier, to first order: what a step of gradient descent on the example
does to the text's loss (TracIn: Pruthi et al. 2020, arXiv:2002.08484, section 3).

By default only the embedding and the head count, whose gradients cancel less (Yeh et al. 2022, arXiv:2202.11844), and
each weight's part is divided by its mean square over the examples, the diagonal of the empirical Fisher matrix: where
all examples pull, one changes little. EXPERIMENTS.md has what this and other ways foretell of trainings without the
examples.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from crawltalk.attribution.gradients import Example, Recorder
from crawltalk.core.errors import BadInput
from crawltalk.model.transformer import Transformer

Method = Literal["dot", "cosine", "layer_cosine", "fisher"]
"""The inner product of both gradients; that of gradients of length 1; the mean over the matrices of the same for each
alone; the inner product, divided by the mean squares.
"""
DAMPING = 1.0
"""The mean of a matrix's mean squares, times this, is added to each, so that weights that hardly any example changes do
not decide. Documents of `small` are ranked more sensibly with it than with 0.01; see EXPERIMENTS.md.
"""


def influence(
    model: Transformer,
    queries: Sequence[Example],
    examples: Sequence[Example],
    *,
    method: Method = "fisher",
    blocks: bool = False,
    damping: float = DAMPING,
) -> Tensor:
    """[queries, examples], fp32: the larger, the more a training on the example lowers the loss of the query.

    `blocks`: the matrices of the blocks count, too. `damping`: of `fisher`. The sum over checkpoints of a training says
    more than its last model alone (TracIn, section 3.2).

    Needs a forward and a backward pass over the examples, `fisher` two, and memory for the queries' gradients. Raises
    BadInput as `Recorder.factors` does, and for another method.
    """
    if method not in get_args(Method):
        raise BadInput(f"there is no method {method!r} of influence; there are {', '.join(get_args(Method))}")
    recorder = Recorder(model, blocks=blocks)
    directions = {
        name: torch.zeros(len(queries), *size, device=recorder.device)
        for name, size in recorder.sizes.items()
    }
    for numbers, name, gradients in recorder.gradients(queries):
        directions[name][numbers] = gradients
    if method == "fisher":
        for name, squares in mean_squares(recorder, examples).items():
            directions[name] /= squares + damping * squares.mean()
    shape = (len(recorder.sizes), len(queries), len(examples))
    products, lengths = torch.zeros(shape), torch.zeros(shape[0], shape[2])
    order = {name: row for row, name in enumerate(recorder.sizes)}
    for numbers, name, gradients in recorder.gradients(examples):
        products[order[name]][:, numbers] = directions[name].flatten(1) @ gradients.flatten(1).T
        lengths[order[name], numbers] = gradients.flatten(1).square().sum(1)
    own = torch.stack([directions[name].flatten(1).square().sum(1) for name in recorder.sizes]).cpu()
    if method == "layer_cosine":
        return (products / _roots(own, lengths)).mean(0)
    if method == "cosine":
        return products.sum(0) / _roots(own.sum(0), lengths.sum(0))
    return products.sum(0)


def mean_squares(recorder: Recorder, examples: Sequence[Example]) -> dict[str, Tensor]:
    """Of each matrix the mean over the examples of the squares of their gradients."""
    squares = {name: torch.zeros(size, device=recorder.device) for name, size in recorder.sizes.items()}
    for _, name, gradients in recorder.gradients(examples):
        squares[name] += gradients.square_().sum(0) / len(examples)
    return squares


def _roots(own: Tensor, lengths: Tensor) -> Tensor:
    """The products of the lengths of two gradients, [.., queries, examples], from their squares."""
    return (own[..., :, None] * lengths[..., None, :]).sqrt().clamp(min=1e-30)
