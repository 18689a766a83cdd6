"""Attacks by suffixes: searched for on the weights of whatever stands before the attacker, its defences with it.

An attack knows the defence (Carlini et al. 2019, "On evaluating adversarial robustness"; Tramer et al. 2020): a guard
model is searched against together with the assistant, the loss of a filter is part of the objective, and where
characters are swapped at random, the expectation over such copies is searched (Athalye et al. 2018). Any other form of
a request can have such a suffix: a story, an encoding, another language, examples, a reply that is begun.
"""

import random
import string
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from crawltalk.redteam.attacks.gcg import LENGTH, STEPS, Loss, Objective, Place, printable_tokens, search
from crawltalk.redteam.attacks.templates import STATIC
from crawltalk.redteam.defenses import COPIES, swapped
from crawltalk.redteam.frame import Attack, Goal, Prompt, Target, WhiteBox
from crawltalk.redteam.policy import HARMLESS

FORMS = ("roleplay", "base64", "language", "many_shot", "prefix")
"""Attacks that are also tried with a suffix behind them."""
REPLAYED = "gcg_replayed"
FORM_STEPS = 40
"""Of a search behind a form, which has begun the work."""
SEARCHED = tuple(f"{name}+gcg" for name in FORMS)
"""Their names."""
ADAPTS_TO = frozenset(
    {"refusals in all forms", "adversarial training", "perplexity filter", "SmoothLLM", "guard model"}
)


class Together(NamedTuple):
    """Several objectives at once: their losses are added up, and all must be hit."""

    parts: Sequence[Objective]

    def gradient(self, suffix: Tensor) -> Tensor:
        """The sum."""
        return torch.stack([part.gradient(suffix) for part in self.parts]).sum(0)

    def of(self, suffixes: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the losses, and whether all are hit."""
        losses, hits = zip(*(part.of(suffixes, current) for part in self.parts), strict=True)
        return torch.stack(losses).sum(0), torch.stack(hits).all(0)


class Swapped:
    """The expectation over copies in which characters are swapped at random, drawn anew in each step; most must be
    hit. A token of the suffix in which a character is swapped becomes any other.
    """

    def __init__(self, box: WhiteBox, prompt: Prompt, wanted: str, rng: random.Random) -> None:
        self.box, self.prompt, self.wanted, self.rng = box, prompt, wanted, rng
        self.tokens = printable_tokens(box.engine.tokenizer)
        self.copies: Sequence[Loss] = ()

    def gradient(self, suffix: Tensor) -> Tensor:
        """The mean over new copies."""
        self.copies = [self._copy(suffix) for _ in range(COPIES)]
        return torch.stack([copy.gradient(suffix) for copy in self.copies]).mean(0)

    def of(self, suffixes: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of the losses, and whether most are hit."""
        losses, hits = zip(*(copy.of(suffixes, current) for copy in self.copies), strict=True)
        return torch.stack(losses).mean(0), torch.stack(hits).float().mean(0) > 0.5

    def _copy(self, suffix: Tensor) -> Loss:
        rng, share = self.rng, self.box.swapped
        place = Place(self.box, self.prompt.asking(swapped(self.prompt.request, rng, share)))
        lengths = [len(place.tokenizer.decode([token])) for token in suffix.tolist()]
        others = [
            rng.choice(self.tokens) if rng.random() > (1 - share) ** length else -1 for length in lengths
        ]
        return place.loss(self.wanted)._replace(others=torch.tensor(others))


def objective(box: WhiteBox, place: Place, prompt: Prompt, wanted: str, rng: random.Random) -> Objective:
    """That the reply to a prompt begins so, whatever stands in front of the model."""
    reply = Swapped(box, prompt, wanted, rng) if box.swapped else place.loss(wanted)
    if box.guard is None:
        return reply
    asked = Prompt([message for message in prompt.messages if message.role == "user"][-1:])
    return Together([reply, Place(box.guard, asked).loss(HARMLESS)])


def suffixes(
    goal: Goal, prompts: Sequence[Prompt], target: Target, rng: random.Random, steps: int = STEPS
) -> Iterator[Prompt]:
    """Each prompt with suffixes that make the likeliest reply begin as wanted, each searched for from a new start,
    until the prompt's share of the steps is spent; then where its last search ended.
    """
    box = target.white_box
    assert box is not None
    for prompt in prompts:
        begun = prompt.messages[-1].role == "assistant"  # the search asks for the beginning that stands there
        bare = Prompt(prompt.messages[:-1]) if begun else prompt
        place, spent, found = Place(box, bare), 0, None
        while spent < steps // len(prompts):
            sought, allowed = (
                objective(box, place, bare, goal.opening, rng),
                printable_tokens(place.tokenizer),
            )
            few = steps // len(prompts) - spent
            for found in search(sought, place.start(rng), allowed, place.keeps, rng, steps=few):
                if found.hit:
                    yield prompt.asking(place.text(found.ids), spent + found.steps)
                    break
            spent += found.steps if found is not None else few
        if found is not None and not found.hit:
            yield prompt.asking(place.text(found.ids), spent)


def gcg(goal: Goal, target: Target, rng: random.Random) -> Iterator[Prompt]:
    """A fresh search on the target's own weights."""
    return suffixes(goal, [goal.prompt], target, rng)


def searched(form: Attack) -> Attack:
    """An attack with a suffix behind each of its first prompts."""

    def run(goal: Goal, target: Target, rng: random.Random) -> Iterator[Prompt]:
        return suffixes(goal, list(form.run(goal, target, rng))[:2], target, rng, FORM_STEPS)

    return Attack(
        name=f"{form.name}+gcg", family=form.family, run=run, white_box=True, atlas="AML.T0043",
        adapts_to=ADAPTS_TO,
    )  # fmt: skip


def replayed(source: Target) -> Attack:
    """The first suffix that a search finds on another target, put to this one: what was static about GCG. Robustness
    against it is no robustness against a fresh search.
    """
    found: dict[str, Prompt | None] = {}

    def run(goal: Goal, target: Target, rng: random.Random) -> Iterable[Prompt]:
        if goal.id not in found:
            found[goal.id] = next(gcg(goal, source, rng), None)
        prompt = found[goal.id]
        return [] if prompt is None else [prompt]

    return Attack(name=REPLAYED, family="suffix", run=run, white_box=True, atlas="AML.T0043")


def random_suffix(goal: Goal, target: Target, rng: random.Random) -> Iterator[Prompt]:
    """As many random tokens, without any search."""
    box = target.white_box
    while True:
        if box is not None:
            place = Place(box, goal.prompt)
            yield goal.prompt.asking(place.text(place.start(rng)))
        else:
            noise = "".join(
                rng.choices(string.ascii_letters + string.digits + string.punctuation, k=3 * LENGTH)
            )
            yield goal.prompt.asking(f"{goal.prompt.request} {noise}")


SUFFIXES = (
    Attack(name="random_suffix", family="suffix", run=random_suffix, control=True),
    Attack(
        name="gcg", family="suffix", run=gcg, white_box=True, atlas="AML.T0043", adapts_to=ADAPTS_TO
    ),
    *(searched(form) for form in STATIC if form.name in FORMS),
)  # fmt: skip
"""Those that come with the package."""
