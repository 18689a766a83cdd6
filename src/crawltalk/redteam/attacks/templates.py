"""Attacks that need no weights: a request in another form, in a story, behind examples, with its answer begun."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from crawltalk.chat.messages import Message
from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.redteam.attacks.forms import ENCODINGS, ROLES, encoded, in_role
from crawltalk.redteam.frame import Attack, Goal, Prompt, Target

PLACE = "{request}"
COMMON = ("base64", "rot13")
"""Encodings that are put together with another form."""


def plain(goal: Goal, target: Target, rng: random.Random) -> Iterable[Prompt]:
    """The request as it is: what the others are compared with."""
    return [goal.prompt]


def roleplay(goal: Goal, target: Target, rng: random.Random) -> Iterable[Prompt]:
    """The stories, in an order of the goal's own."""
    return [goal.prompt.asking(in_role(role, goal.prompt.request)) for role in rng.sample(ROLES, len(ROLES))]


def encoding(name: str) -> Callable[[Goal, Target, random.Random], Iterable[Prompt]]:
    """The request in an encoding."""

    def run(goal: Goal, target: Target, rng: random.Random) -> Iterable[Prompt]:
        return [goal.prompt.asking(encoded(name, goal.prompt.request))]

    return run


def language(goal: Goal, target: Target, rng: random.Random) -> Iterable[Prompt]:
    """The request in the goal's other languages (Deng et al. 2023)."""
    return [goal.prompt.asking(text) for text in goal.translations.values()]


def many_shot(goal: Goal, target: Target, rng: random.Random) -> Iterator[Prompt]:
    """Ever more questions and answers of that kind in front of the request (Anil et al. 2024)."""
    pairs = len(goal.examples) // 2
    for count in sorted({max(1, pairs // 2), pairs}) if pairs else ():
        yield Prompt([*goal.examples[: 2 * count], *goal.prompt.messages])


def prefix(goal: Goal, target: Target, rng: random.Random) -> Iterable[Prompt]:
    """The reply begun by the attacker (Andriushchenko et al. 2024, section 3)."""
    return [Prompt([*goal.prompt.messages, Message("assistant", goal.opening)])] if goal.opening else []


def redundant(goal: Goal, target: Target, rng: random.Random) -> Iterable[Prompt]:
    """Each story with the request three times in it: where characters are changed at random, one is likely whole."""
    request = goal.prompt.request
    return [
        goal.prompt.asking(in_role(role, f"{request} {request} {request}"))
        for role in rng.sample(ROLES, len(ROLES))
    ]


def nested(goal: Goal, target: Target, rng: random.Random) -> Iterator[Prompt]:
    """Two forms at once (Wei et al. 2023, section 3.3: combinations): a story around an encoded request, an encoded
    story, another language encoded, examples in front of an encoded request.
    """
    request, role, prompt = goal.prompt.request, rng.choice(ROLES), goal.prompt
    for name in rng.sample(COMMON, len(COMMON)):
        yield prompt.asking(in_role(role, encoded(name, request)))
        yield prompt.asking(encoded(name, in_role(role, request)))
    for text in goal.translations.values():
        yield prompt.asking(encoded(COMMON[0], text))
    if goal.examples:
        yield Prompt([*goal.examples, *prompt.asking(encoded(COMMON[0], request)).messages])


def in_the_wild(templates: Sequence[str]) -> Attack:
    """Templates of a person's own, in their order."""

    def run(goal: Goal, target: Target, rng: random.Random) -> Iterable[Prompt]:
        return [goal.prompt.asking(template.replace(PLACE, goal.prompt.request)) for template in templates]

    return Attack(name="in_the_wild", family="roleplay", run=run)


def read_templates(path: Path) -> list[str]:
    """Templates from a text file: blocks between lines of three hyphens, each with {request} in it. Raises MissingInput
    or BadInput.
    """
    if not path.exists():
        raise MissingInput(f"{path} does not exist")
    blocks = [block.strip() for block in f"\n{path.read_text(encoding='utf-8')}\n".split("\n---\n")]
    templates = [block for block in blocks if block]
    for number, template in enumerate(templates, 1):
        if PLACE not in template:
            raise BadInput(f"{path}: template {number} has no {PLACE} where the request goes")
    return templates


STATIC = (
    Attack(name="plain", family="plain", run=plain),
    Attack(name="roleplay", family="roleplay", run=roleplay),
    *(Attack(name=name, family="encoding", run=encoding(name)) for name in ENCODINGS),
    Attack(name="language", family="language", run=language),
    Attack(name="many_shot", family="many-shot", run=many_shot),
    Attack(name="prefix", family="prefix", run=prefix),
    Attack(
        name="nested",
        family="composed",
        run=nested,
        adapts_to=frozenset({"refusals in all forms", "adversarial training", "guard model"}),
    ),
    Attack(name="redundant", family="roleplay", run=redundant, adapts_to=frozenset({"SmoothLLM"})),
)
"""Those that come with the package."""
