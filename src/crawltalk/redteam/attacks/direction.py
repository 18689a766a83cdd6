"""The refusal direction: the difference between the mean states of forbidden and of harmless requests (Arditi et al.
2024). Without it refusals end; added to all states it causes them. Random directions are the control.
"""

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from crawltalk.engine import Engine
from crawltalk.engine.backends.torch import TorchBackend
from crawltalk.model.transformer import Transformer
from crawltalk.redteam.attacks.templates import plain
from crawltalk.redteam.frame import Attack, Goal, Prompt, Target, WhiteBox
from crawltalk.redteam.targets import ROOM, EngineTarget, prompt_ids

ADDED = 1.5
"""How often the difference of the means is added."""
CACHE_BYTES = 2**26
Change = Callable[[int, Tensor], Tensor]
"""(layer, states) -> other states, [.., D]."""


@torch.no_grad()
def states_of(box: WhiteBox, prompts: Sequence[Prompt]) -> Tensor:
    """The state behind each layer at the last token of each prompt, [layers, prompts, D]."""
    kept: list[list[Tensor]] = [[] for _ in box.model.blocks]

    def keep(layer: int) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda module, inputs, output: kept[layer].append(output[0, -1])

    hooks = [block.register_forward_hook(keep(layer)) for layer, block in enumerate(box.model.blocks)]
    for prompt in prompts:
        box.model.states(torch.tensor([prompt_ids(box.engine, prompt, ROOM)]))
    for hook in hooks:
        hook.remove()
    return torch.stack([torch.stack(rows) for rows in kept])


def means(box: WhiteBox, goals: Sequence[Goal]) -> tuple[Tensor, Tensor]:
    """The mean states behind each layer of the goals' requests and of their twins, [layers, D] both."""
    twins = [goal.twin.prompt for goal in goals if goal.twin is not None]
    forbidden, harmless = (states_of(box, some) for some in ([goal.prompt for goal in goals], twins))
    return forbidden.mean(1), harmless.mean(1)


def middle(layers: Sequence[object] | Tensor) -> int:
    """The layer whose direction is taken."""
    return (len(layers) - 1) // 2


def fixed(direction: Tensor, levels: Tensor) -> Change:
    """Every state behind each layer with the same part along a direction: `levels`, [layers]. Where that is 0, the
    direction is taken out.
    """
    unit = direction / direction.norm()
    return lambda layer, states: states + (levels[layer] - states @ unit)[..., None] * unit


def plus(direction: Tensor, at: int) -> Change:
    """A direction added to all states behind one layer."""
    return lambda layer, states: states + ADDED * direction if layer == at else states


def steered(target: Target, change: Change) -> Target:
    """The model with its states changed behind every layer, in an engine that computes with torch."""
    box = target.white_box
    assert box is not None
    model: Transformer = copy.deepcopy(box.model)

    def hook(layer: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        return lambda module, inputs, output: change(layer, output)

    for layer, block in enumerate(model.blocks):
        block.register_forward_hook(hook(layer))
    engine = Engine(
        model, box.engine.tokenizer, TorchBackend(model, cache_bytes=CACHE_BYTES), box.engine.renderer
    )
    return EngineTarget(target.name, engine, model)


def ablate(target: Target, goals: Sequence[Goal], rng: random.Random) -> Target:
    """With what tells forbidden requests from harmless ones at the level of the harmless ones. Taken out altogether
    (level 0), as in the paper, a small model refuses still: its harmless states are not at 0 (Marshall et al. 2024,
    "Refusal in LLMs is an affine function").
    """
    assert target.white_box is not None
    forbidden, harmless = means(target.white_box, goals)
    direction = (forbidden - harmless)[middle(harmless)]
    return steered(target, fixed(direction, harmless @ (direction / direction.norm())))


def add(target: Target, goals: Sequence[Goal], rng: random.Random) -> Target:
    """With the direction added: harmless twins are declined, too."""
    assert target.white_box is not None
    forbidden, harmless = means(target.white_box, goals)
    at = middle(harmless)
    return steered(target, plus((forbidden - harmless)[at], at))


def ablate_random(target: Target, goals: Sequence[Goal], rng: random.Random) -> Target:
    """The same with a random direction."""
    assert target.white_box is not None
    _, harmless = means(target.white_box, goals)
    generator = torch.Generator().manual_seed(rng.getrandbits(60))
    direction = torch.randn(harmless.shape[1], generator=generator)
    return steered(target, fixed(direction, harmless @ (direction / direction.norm())))


DIRECTIONS = tuple(
    Attack(
        name=name, family="weights", run=plain, white_box=True, tamper=tamper, control=control,
        adapts_to=frozenset() if control else frozenset({"refusals in all forms", "adversarial training"}),
        owasp="LLM03:2025", atlas="AML.T0018",
    )
    for name, tamper, control in (
        ("direction_ablated", ablate, False), ("direction_added", add, True), ("random_direction", ablate_random, True),
    )
)  # fmt: skip
"""Attacks on the weights themselves."""
