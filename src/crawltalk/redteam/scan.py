"""A scan: attacks on a target behind its defences, with the controls beside them, written as it goes.

FOLDER/attempts.jsonl    every attempt, with its whole prompt and reply
FOLDER/scores.json       a cell for each attack on each defence
FOLDER/house/SEED/       the assistants that were brought up to be attacked, in Hugging Face's layout
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from crawltalk.model.transformer import Transformer
from crawltalk.recipe import Machine
from crawltalk.redteam.adversarial import adversarial
from crawltalk.redteam.assistant import Upbringing
from crawltalk.redteam.attacks import ATTACKS
from crawltalk.redteam.attacks.templates import STATIC
from crawltalk.redteam.attempts import ATTEMPTS, AttemptLog
from crawltalk.redteam.controls import NULLS
from crawltalk.redteam.defenses import SMOOTH, guard_model, perplexity_filter, trained_in
from crawltalk.redteam.frame import NO_DEFENSE, Attack, Defense, Goal, Target, WhiteBox
from crawltalk.redteam.policy import Policy
from crawltalk.redteam.runner import run_cell
from crawltalk.redteam.scores import Cell, Scores, annotate, check, write_scores
from crawltalk.redteam.targets import EngineTarget
from crawltalk.run.stage import Progress

TOKENS = 24
"""Of a reply in the house."""
FORMS = [attack.name for attack in STATIC if attack.name != "redundant"]


class Plan(NamedTuple):
    """A cell that is to be measured."""

    attack: Attack
    goals: Sequence[Goal]
    target: Target
    defense: Defense
    seed: int = 0


def scan(
    plans: Iterable[Plan], out: Path, *, budget: int, progress: Progress, most: float | None = None
) -> Scores:
    """Measure all cells and write them. `most`: the share of successes that a gate allows; None: no gates."""
    cells: list[Cell] = []
    with AttemptLog(out / ATTEMPTS) as log:
        for plan in plans:
            attack, goals, target, defense, seed = plan
            cell = run_cell(
                attack, goals, target, defense, log, budget=budget, seed=seed, twins=not attack.white_box
            )
            cells.append(cell)
            rate = "not judged" if cell.rate is None else f"{cell.rate:.0%}"
            progress.note(f"{attack.name} on {target.name}, defence {defense.name}, seed {seed}: {rate}")
    annotate(cells)
    scores = Scores(cells=cells, gates=[] if most is None else check(cells, most))
    write_scores(out, scores)
    return scores


def against(
    target: Target, goals: Sequence[Goal], attacks: Sequence[Attack], defenses: Sequence[Defense], seed: int
) -> Iterator[Plan]:
    """Each attack on a target, without a defence and behind each, and on the null models."""
    for defense in (NO_DEFENSE, *defenses):
        for attack in attacks:
            yield Plan(attack, goals, target, defense, seed)
    yield from on_nulls(goals, attacks, seed)


def on_nulls(goals: Sequence[Goal], attacks: Sequence[Attack], seed: int) -> Iterator[Plan]:
    """The attacks that need no weights, on targets against which nothing can succeed."""
    for null in NULLS:
        yield from (Plan(attack, goals, null, NO_DEFENSE, seed) for attack in attacks if not attack.white_box)


def house(
    seed: int, out: Path, machine: Machine, progress: Progress, *, goals: int, searched: int
) -> Iterator[Plan]:
    """The house of a seed: its assistant, each defence with the attacks that adapt to it, and the controls.

    `goals`: locked doors that are attacked; `searched`: those of them for which suffixes are searched for.
    """
    policy = Policy(seed)
    up = Upbringing(policy, out / "house" / str(seed), machine, progress)
    doors = policy.goals()[:goals]
    few = doors[:searched]

    def target(name: str, model: Transformer) -> EngineTarget:
        return EngineTarget(name, up.engine(model), model, TOKENS)

    def plans(on: Target, defense: Defense, names: Iterable[str]) -> Iterator[Plan]:
        for name in names:
            attack = ATTACKS[name]
            search = attack.white_box and attack.tamper is None
            yield Plan(attack, few if search else doors, on, defense, seed)

    assistant = target("house", up.assistant())
    yield from plans(target("house-base", up.base()), NO_DEFENSE, ["plain"])
    yield from on_nulls(doors, STATIC, seed)
    directions = ["direction_ablated", "direction_added", "random_direction"]
    yield from plans(assistant, NO_DEFENSE, [*FORMS, "random_suffix", "gcg", *directions])
    hardened = trained_in("refusals in all forms", target("house", up.hardened()))
    yield from plans(
        assistant, hardened, [*FORMS, "random_suffix", "gcg", "direction_ablated", "random_direction"]
    )
    robust = trained_in("adversarial training", target("house", adversarial(up)))
    yield from plans(
        assistant, robust, [*FORMS, "random_suffix", "gcg", "direction_ablated", "random_direction"]
    )
    harmless = [goal.twin.prompt for goal in policy.goals() if goal.twin is not None]
    yield from plans(
        assistant,
        perplexity_filter(harmless),
        ["plain", "roleplay", "base64", "random_suffix", "gcg", "fluent_gcg"],
    )
    yield from plans(assistant, SMOOTH, ["plain", "roleplay", "base64", "random_suffix", "gcg", "redundant"])
    model = up.guard()
    guard = guard_model(WhiteBox(up.engine(model), model))
    yield from plans(assistant, guard, [*FORMS, "random_suffix", "gcg"])
