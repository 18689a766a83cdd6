"""Gradients of single examples, from one forward and one backward pass over many.

The gradient of a weight matrix W, y = W x, is the sum over positions of the outer product of the gradient by y with x.
One backward pass of the summed loss gives both factors for all examples (Goodfellow 2015, arXiv:1510.01799), and an
example's gradient of a matrix is a product of the two. So that of all matrices is never in memory.
"""

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crawltalk.core.errors import BadInput
from crawltalk.model.transformer import Transformer
from crawltalk.train.batches import IGNORE_INDEX

Example = tuple[Sequence[int], Sequence[bool]]
"""Token ids, and of each whether it is learned. The first one is only read."""
POSITIONS = 1024
"""Of rows that go through the model together."""
NUMBERS = 2**24
"""Of the gradients of one matrix that are in memory at once: 64 MB."""


class Factors(NamedTuple):
    """What the gradients of a matrix, [O, I], consist of: for each row the sum over positions of outer products."""

    inputs: Tensor
    """What the matrix was multiplied with, [B, T, I]; of an embedding the tokens, [B, T]."""
    outputs: Tensor
    """The gradient of the loss by the product, [B, T, O]; of an embedding by the vectors, [B, T, I]."""

    def gradients(self, size: torch.Size) -> Tensor:
        """The gradient of each row's loss by the matrix of this size, [B, O, I]."""
        if self.inputs.is_floating_point():
            return self.outputs.mT @ self.inputs
        rows = torch.arange(len(self.inputs), device=self.inputs.device)[:, None]
        summed = self.outputs.new_zeros(len(self.inputs) * size[0], size[1])
        summed.index_add_(0, (rows * size[0] + self.inputs).flatten(), self.outputs.flatten(0, 1))
        return summed.view(-1, *size)


class Recorder:
    """Records the factors of a model's matrices: of the embedding and the head, and of the blocks, if these are asked
    for. Weights of norms, biases and what `speedrun` adds are not covered.
    """

    def __init__(self, model: Transformer, *, blocks: bool = True) -> None:
        """A copy in fp32 is made of the model; what later happens to it changes nothing."""
        self.model = copy.deepcopy(model).float().requires_grad_(False)
        self.device = self.model.embedding.weight.device
        self.sizes = {"embedding.weight": self.model.embedding.weight.shape}
        """Of the matrices, by the names of the model's parameters."""
        if self.model.head is not None:
            self.sizes["head.weight"] = self.model.head.weight.shape
        self._seen: dict[str, tuple[Tensor, Tensor]] = {}
        for block in self.model.blocks if blocks else ():
            for norm in ("attention_norm", "mlp_norm"):
                setattr(block, norm, _Norm(getattr(block, norm)))
        for name, module in self.model.blocks.named_modules(prefix="blocks") if blocks else ():
            if isinstance(module, nn.Linear):
                self.sizes[f"{name}.weight"] = module.weight.shape
                module.register_forward_hook(partial(self._record, f"{name}.weight"))

    def _record(self, name: str, _: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        self._seen[name] = inputs[0], output

    def factors(self, examples: Sequence[Example]) -> dict[str, list[Factors]]:
        """Of each matrix, by name, for the cross entropy of each example, summed over its learned tokens. A matrix that
        is used twice, as an embedding that is the head, too, has two.

        Raises BadInput for an example that has no token to learn or is longer than the context.
        """
        tokens_BT, targets_BT = (rows.to(self.device) for rows in padded(examples, self.model.shape.context))
        model, cap = self.model, self.model.logit_cap
        embedded_BTD = model.embedding(tokens_BT).requires_grad_()
        self._seen.clear()
        with torch.enable_grad():
            states_BTD = model.states(tokens_BT, embeddings_BTD=embedded_BTD)
            logits_BTV = F.linear(states_BTD, model.head_weight)
            capped = logits_BTV if cap is None else cap * torch.tanh(logits_BTV / cap)
            loss = F.cross_entropy(
                capped.flatten(0, 1), targets_BT.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
            )
            products = [embedded_BTD, logits_BTV, *(output for _, output in self._seen.values())]
            gradients = torch.autograd.grad(loss, products)
        head = "embedding.weight" if model.head is None else "head.weight"
        found = {"embedding.weight": [Factors(tokens_BT, gradients[0])]}
        found.setdefault(head, []).append(Factors(states_BTD.detach(), gradients[1]))
        for (name, (inputs, _)), gradient in zip(self._seen.items(), gradients[2:], strict=True):
            found[name] = [Factors(inputs.detach(), gradient)]
        self._seen.clear()
        return found

    def gradients(self, examples: Sequence[Example]) -> Iterator[tuple[list[int], str, Tensor]]:
        """(numbers of some examples, name of a matrix, their gradients by it, [len(numbers), O, I]): all matrices of
        some examples, which are of about the same length, then all of the next ones.
        """
        largest = max(size.numel() for size in self.sizes.values())
        most = max(1, NUMBERS // largest)
        for numbers in _batches([len(ids) for ids, _ in examples], most):
            factors = self.factors([examples[number] for number in numbers])
            for name, size in self.sizes.items():
                yield numbers, name, torch.stack([one.gradients(size) for one in factors[name]]).sum(0)


def padded(examples: Sequence[Example], context: int) -> tuple[Tensor, Tensor]:
    """Tokens and targets, [B, T] int64, a row for each example. Raises BadInput for one that has no token to learn, or
    more than fit into the context.
    """
    length = max(len(ids) for ids, _ in examples) - 1
    if length > context:
        raise BadInput(
            f"an example of {length + 1} tokens does not fit into the context of {context}; cut it"
        )
    tokens = torch.zeros((len(examples), length), dtype=torch.int64)
    targets = torch.full_like(tokens, IGNORE_INDEX)
    for row, (ids, learned) in enumerate(examples):
        if not any(learned[1:]):
            raise BadInput("an example has no token to learn behind the first")
        tokens[row, : len(ids) - 1] = torch.tensor(ids[:-1])
        following = torch.where(torch.tensor(learned[1:]), torch.tensor(ids[1:]), IGNORE_INDEX)
        targets[row, : len(ids) - 1] = following
    return tokens, targets


class _Norm(nn.Module):
    """A norm that is computed apart from the matrix behind it (`model.transformer.linear_of_norm`), so that the hook of
    the matrix sees what it is multiplied with.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.norm(x_BTD)


def _batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Numbers of examples of about the same length, with `POSITIONS` at most when they are filled up to the longest."""
    numbers: list[int] = []
    for number in sorted(range(len(lengths)), key=lengths.__getitem__):
        if numbers and (len(numbers) == most or (len(numbers) + 1) * lengths[number] > POSITIONS):
            yield numbers
            numbers = []
        numbers.append(number)
    if numbers:
        yield numbers
