"""A scan: attacks on a target behind its defences, with the controls beside them, written as it goes.

FOLDER/attempts.jsonl    every attempt, with its whole prompt and reply
FOLDER/scores.json       a cell for each attack on each defence
FOLDER/house/SEED/       the assistants that were brought up to be attacked, in Hugging Face's layout
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from crawltalk.model.transformer import Transformer
from crawltalk.recipe import Machine
from crawltalk.redteam.adversarial import adversarial
from crawltalk.redteam.assistant import USUAL, Schedule, Upbringing
from crawltalk.redteam.attacks import ATTACKS
from crawltalk.redteam.attacks.suffixes import REPLAYED, SEARCHED, replayed
from crawltalk.redteam.attacks.templates import STATIC
from crawltalk.redteam.attempts import ATTEMPTS, AttemptLog
from crawltalk.redteam.controls import NULLS
from crawltalk.redteam.defenses import SMOOTH, guard_model, perplexity_filter, trained_in
from crawltalk.redteam.frame import NO_DEFENSE, Attack, Defense, Goal, Target, WhiteBox
from crawltalk.redteam.policy import Policy
from crawltalk.redteam.runner import run_cell
from crawltalk.redteam.scores import Cell, Scores, annotate, check, label, write_scores
from crawltalk.redteam.targets import EngineTarget
from crawltalk.run.stage import Progress

TOKENS = 24
"""Of a reply in the house."""
FORMS = [attack.name for attack in STATIC if attack.name != "redundant"]


SEARCHES = ("random_suffix", "gcg", *SEARCHED)
WEIGHTS = ("direction_ablated", "direction_added", "random_direction")


HOUSE = (
    *(
        "none",
        "refusals in all forms",
        "adversarial training",
        "perplexity filter",
        "SmoothLLM",
        "guard model",
    ),
)
"""Defences of the house, the first being none."""


class Plan(NamedTuple):
    """A cell that is to be measured."""

    attack: Attack
    goals: Sequence[Goal]
    target: Target
    defense: Defense
    seed: int = 0
    control: bool = False
    """Whether the target is there to measure others by."""


def scan(
    plans: Iterable[Plan], out: Path, *, budget: int, progress: Progress, most: float | None = None
) -> Scores:
    """Measure all cells and write them. `most`: the share of successes that a gate allows; None: no gates."""
    cells: list[Cell] = []
    with AttemptLog(out / ATTEMPTS) as log:
        for plan in plans:
            attack, goals, target, defense, seed, control = plan
            twins = not attack.white_box or attack.tamper is not None
            cell = run_cell(attack, goals, target, defense, log, budget=budget, seed=seed, twins=twins)
            cell.control |= control
            cells.append(cell)
            rate = "not judged" if cell.rate is None else f"{cell.rate:.0%}"
            progress.note(f"{label(cell)}: {rate}")
    annotate(cells)
    scores = Scores(cells=cells, gates=[] if most is None else check(cells, most))
    write_scores(out, scores)
    return scores


def against(
    target: Target, goals: Sequence[Goal], attacks: Sequence[Attack], defenses: Sequence[Defense], seed: int
) -> Iterator[Plan]:
    """Each attack on a target behind each of these defences, and on the null models."""
    for defense in defenses:
        for attack in attacks:
            yield Plan(attack, goals, target, defense, seed)
    yield from on_nulls(goals, attacks, seed)


def on_nulls(goals: Sequence[Goal], attacks: Sequence[Attack], seed: int) -> Iterator[Plan]:
    """The attacks that need no weights, on targets against which nothing can succeed."""
    for null in NULLS:
        for attack in attacks:
            if not attack.white_box:
                yield Plan(attack, goals, null, NO_DEFENSE, seed, control=True)


def house(
    seed: int,
    out: Path,
    machine: Machine,
    progress: Progress,
    *,
    doors: int,
    searched: int,
    attacks: Mapping[str, Attack] = ATTACKS,
    defenses: Collection[str] = HOUSE,
    schedule: Schedule = USUAL,
) -> Iterator[Plan]:
    """The house of a seed: its assistant, each defence with the attacks that adapt to it, and the controls. A model is
    trained when the first of its cells is asked for.

    `attacks`: those of a person's own meet each defence. `doors`: locked ones that are attacked; `searched`: those of
    them for which suffixes are searched for.
    """
    policy = Policy(seed)
    up = Upbringing(policy, out / "house" / str(seed), machine, progress, schedule)
    goals = policy.goals()[:doors]

    def target(model: Transformer, name: str = "house") -> EngineTarget:
        return EngineTarget(name, up.engine(model), model, TOKENS)

    def plans(on: Target, defense: Defense, names: Iterable[str]) -> Iterator[Plan]:
        for attack in (known[name] for name in (*names, *own) if name in known):
            few = attack.white_box and attack.tamper is None
            yield Plan(attack, goals[:searched] if few else goals, on, defense, seed)

    def guard() -> Defense:
        model = up.guard()
        return guard_model(WhiteBox(up.engine(model), model))

    harmless = [goal.twin.prompt for goal in policy.goals() if goal.twin is not None]
    made: dict[str, tuple[Callable[[], Defense], Iterable[str]]] = {
        "none": (lambda: NO_DEFENSE, (*FORMS, *SEARCHES, *WEIGHTS)),
        "refusals in all forms": (
            lambda: trained_in("refusals in all forms", target(up.hardened())),
            (*FORMS, *SEARCHES, REPLAYED, *WEIGHTS),
        ),
        "adversarial training": (
            lambda: trained_in("adversarial training", target(adversarial(up))),
            (*FORMS, *SEARCHES, REPLAYED, *WEIGHTS),
        ),
        "perplexity filter": (lambda: perplexity_filter(harmless), (*FORMS, *SEARCHES, REPLAYED)),
        "SmoothLLM": (lambda: SMOOTH, (*FORMS, *SEARCHES, REPLAYED, "redundant")),
        "guard model": (guard, (*FORMS, *SEARCHES, REPLAYED)),
    }
    yield Plan(ATTACKS["plain"], goals, target(up.base(), "house-base"), NO_DEFENSE, seed, control=True)
    static = {*(attack.name for attack in STATIC), *(name for name in attacks if name not in ATTACKS)}
    yield from on_nulls(goals, [attack for name, attack in attacks.items() if name in static], seed)
    assistant = target(up.assistant())
    known = {**attacks, **({REPLAYED: replayed(assistant)} if "gcg" in attacks else {})}
    own = [name for name in attacks if name not in ATTACKS]
    for name in HOUSE:
        if name in defenses:
            make, names = made[name]
            yield from plans(assistant, make(), names)
