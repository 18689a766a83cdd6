"""Attacks that need no weights: a request in another form, in a story, behind examples, with its answer begun."""

import csv
import io
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from crawltalk.chat.messages import Message
from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.formats import detect_format
from crawltalk.core.printable import printable
from crawltalk.core.rows import read_rows
from crawltalk.redteam.attacks.forms import ENCODINGS, ROLES, encoded, in_role
from crawltalk.redteam.frame import Attack, Goal, Prompt, Target
from crawltalk.redteam.targets import ROOM, prompt_ids

IN_THE_WILD = "in_the_wild"
"""The attack by templates of a person's own."""
PLACE = "{request}"
"""Where the request goes."""
PLACES = ("[INSERT PROMPT HERE]", "[[PROMPT]]", "{{prompt}}", "{{request}}", "{prompt}")
"""What others write there, GPTFuzzer first."""
COLUMNS = ("template", "text", "prompt", "jailbreak", "content")
"""Columns of tables that hold templates, the first that is there."""
LONGEST = 20_000
"""Characters of a template."""
COMMON = ("base64", "rot13")
"""Encodings that are put together with another form."""


class Fault(NamedTuple):
    """Stands for a row that holds no template."""

    reason: str


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
    """Templates of a person's own, in an order of the goal's own, but those that do not fit into a known context."""

    def run(goal: Goal, target: Target, rng: random.Random) -> Iterator[Prompt]:
        for template in rng.sample(templates, len(templates)):
            prompt = goal.prompt.asking(template.replace(PLACE, goal.prompt.request))
            if _fits(prompt, target):
                yield prompt

    return Attack(name=IN_THE_WILD, family="in the wild", run=run)


def _fits(prompt: Prompt, target: Target) -> bool:
    if target.white_box is None:
        return True
    try:
        prompt_ids(target.white_box.engine, prompt, ROOM)
    except BadInput:
        return False
    return True


def read_templates(path: Path) -> tuple[list[str], list[str]]:
    """Templates from a file of a person's own, each with PLACE in it, and why others were set aside: a text file of
    blocks between lines of three hyphens, or a table (CSV, JSON, JSONL, Parquet) with a column of them. Raises
    MissingInput, and BadInput for a file without any.
    """
    if not path.is_file():
        raise MissingInput(f"{path} is {'a folder; name a file' if path.is_dir() else 'not there'}")
    templates: dict[str, None] = {}
    aside = []
    for number, text in _texts(path):
        template = text if isinstance(text, str) else ""
        for place in PLACES:
            template = template.replace(place, PLACE)
        if reason := _fault(text, template, template in templates):
            aside.append(f"template {number}: {reason}")
        else:
            templates[template] = None
    if not templates:
        first = f"; the first: {aside[0]}" if aside else ""
        raise BadInput(f"{path} has no template with {PLACE} where the request goes{first}")
    return list(templates), aside


def _fault(text: str | Fault, template: str, known: bool) -> str:
    """Why a template cannot be used; nothing if it can."""
    if isinstance(text, Fault):
        return text.reason
    if any("\udc80" <= letter <= "\udcff" for letter in template):
        return "not UTF-8"
    if PLACE not in template:
        return f"no place for the request, such as {PLACE}: {printable(text) or 'it is empty'}"
    if len(template) > LONGEST:
        return f"{len(template):,} characters, {LONGEST:,} at most"
    return "there already" if known else ""


def _texts(path: Path) -> Iterator[tuple[int, str | Fault]]:
    """Number and text of each template."""
    kind = detect_format(path)
    if kind in ("json", "parquet"):
        rows: Iterable[tuple[int, Mapping[str, Any] | str]] = read_rows(path, "templates")
    else:
        content = path.read_bytes().decode("utf-8-sig", "surrogateescape")
        if kind != "csv":
            blocks = (block.strip() for block in f"\n{content}\n".replace("\r\n", "\n").split("\n---\n"))
            yield from enumerate((block for block in blocks if block), 1)
            return
        csv.field_size_limit(10 * LONGEST)
        rows = enumerate(
            csv.DictReader(io.StringIO(content), delimiter="\t" if ".tsv" in path.name else ","), 1
        )
    try:
        for number, row in rows:
            if isinstance(row, str):
                yield number, Fault(row)
                continue
            named = next((row[name] for name in COLUMNS if name in row), None)
            named_columns = ", ".join(COLUMNS)
            missing = Fault(f"no text in a column that is called one of: {named_columns}")
            yield number, named if isinstance(named, str) else missing
    except csv.Error as error:
        raise BadInput(f"{path} is damaged: {error}") from None


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
