"""The refusal direction: the difference between the mean states of forbidden and of harmless requests (Arditi et al.
2024). Taken out of every state it ends refusals; added to all it causes them. Random directions are the control.
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


def refusal_directions(box: WhiteBox, goals: Sequence[Goal]) -> Tensor:
    """Of each layer, [layers, D]: the mean state of the goals' requests minus that of their twins."""
    twins = [goal.twin.prompt for goal in goals if goal.twin is not None]
    forbidden, harmless = (states_of(box, some) for some in ([goal.prompt for goal in goals], twins))
    return forbidden.mean(1) - harmless.mean(1)


def without(direction: Tensor) -> Change:
    """Each state without its part along a direction."""
    unit = direction / direction.norm()
    return lambda layer, states: states - (states @ unit)[..., None] * unit


def plus(directions: Tensor) -> Change:
    """The difference of the means added to all states of the last layer but one, or the only one."""
    at = max(0, len(directions) - 2)
    return lambda layer, states: states + ADDED * directions[at] if layer == at else states


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
    """Without the direction of the layer where both kinds differ most, relative to the spread of their states."""
    assert target.white_box is not None
    directions = refusal_directions(target.white_box, goals)
    spread = states_of(target.white_box, [goal.prompt for goal in goals]).std(1).norm(dim=1)
    return steered(target, without(directions[int((directions.norm(dim=1) / spread).argmax())]))


def add(target: Target, goals: Sequence[Goal], rng: random.Random) -> Target:
    """With the direction added: harmless twins are declined, too."""
    assert target.white_box is not None
    return steered(target, plus(refusal_directions(target.white_box, goals)))


def ablate_random(target: Target, goals: Sequence[Goal], rng: random.Random) -> Target:
    """Without a random direction."""
    assert target.white_box is not None
    generator = torch.Generator().manual_seed(rng.getrandbits(60))
    return steered(target, without(torch.randn(target.white_box.model.width, generator=generator)))


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
