"""The stage `redteam`: the house, and the run's own assistant, in one table."""

from collections.abc import Iterator

from crawltalk import recipe
from crawltalk.core.errors import BadInput
from crawltalk.engine import load_engine
from crawltalk.redteam.attacks import ATTACKS, QUICK
from crawltalk.redteam.attacks.templates import STATIC
from crawltalk.redteam.frame import NO_DEFENSE
from crawltalk.redteam.kept_secrets import secret_goals
from crawltalk.redteam.policy import DOORS
from crawltalk.redteam.scan import Plan, against, house, scan
from crawltalk.redteam.scores import NO_CAPABILITY, Cell
from crawltalk.redteam.targets import EngineTarget
from crawltalk.run.stage import Job, Metrics

TOKENS = 48


def redteam(job: Job[recipe.Redteam]) -> Metrics:
    """Write attempts.jsonl and scores.json, and the models of the house."""
    config, locked = job.config, len(DOORS) // 2
    if not 0 < config.doors <= locked:
        raise BadInput(
            f"redteam.doors is {config.doors}; the house has {locked} locked doors, 1 is the least"
        )

    def plans() -> Iterator[Plan]:
        yield from house(
            job.seed, job.out, job.machine, job.progress, doors=config.doors, searched=config.searched,
            attacks=QUICK,
        )  # fmt: skip
        engine = load_engine(job.model("assistant"))
        goals = secret_goals(config.secrets, job.seed)
        own = EngineTarget("assistant", engine, max_tokens=TOKENS)
        yield from against(own, goals, [*STATIC, ATTACKS["random_suffix"]], [NO_DEFENSE], job.seed)

    cells = scan(plans(), job.out, budget=config.budget, progress=job.progress).cells
    return {"cells": len(cells), "attempts": sum(cell.attempts for cell in cells), **_summary(cells)}


def _summary(cells: list[Cell]) -> Metrics:
    """The worst attack on each defence of the house."""
    worst: Metrics = {}
    for cell in cells:
        if cell.target == "house" and not cell.control and cell.rate is not None:
            name = f"worst.{cell.defense.replace(' ', '_')}"
            worst[name] = max(round(cell.rate, 4), float(worst.get(name, 0.0)))
    nulls = [cell for cell in cells if cell.target.startswith("null-")]
    worst["null_successes"] = sum(round((cell.rate or 0.0) * cell.goals) for cell in nulls)
    worst["no_capability"] = sum(NO_CAPABILITY in cell.notes for cell in cells)
    return worst
