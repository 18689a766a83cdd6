"""What leaves the application when what it reads is hostile, and whether it still works when it is not.

FOLDER/attempts.jsonl    every attempt, with what reached the canary
FOLDER/scores.json       a cell for each way out behind each defence
FOLDER/tasks.jsonl       legitimate tasks, and whether they were done behind the product's defences
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from crawltalk.application.target import Application
from crawltalk.application.tasks import TASKS, Done, do
from crawltalk.core.files import write_atomically
from crawltalk.engine.service import Service
from crawltalk.redteam.attacks.exfiltration import ATTACKS, ENTRANCES, goals
from crawltalk.redteam.frame import Attack
from crawltalk.redteam.obedient import StandIn
from crawltalk.redteam.scan import Plan, on_nulls, scan
from crawltalk.redteam.scores import Scores, check, write_scores
from crawltalk.run.stage import Progress

DONE = "tasks.jsonl"


def exfiltration(
    out: Path,
    progress: Progress,
    *,
    attacks: Sequence[Attack] = ATTACKS,
    most: float | None = None,
    model: Service | None = None,
) -> tuple[Scores, list[Done]]:
    """Measure all cells and all tasks, and write them. `most`: the share of attempts that may get through the
    product. `model`: in the place of the stand-in, with fewer cells and no tasks, whose replies are scripted. Raises
    MissingInput without a browser.
    """
    application = Application(StandIn()) if model is None else Application(model, name="model")
    with application:
        scores = scan(plans(application, attacks, whole=model is None), out, budget=1, progress=progress)
        if most is not None:
            product = [cell for cell in scores.cells if cell.defense == application.product.name]
            scores = msgspec.structs.replace(scores, gates=check(product, most))
            write_scores(out, scores)
        done = [do(task, application) for task in TASKS] if model is None else []
    write_atomically(out / DONE, b"".join(msgspec.json.encode(one) + b"\n" for one in done))
    return scores, done


def plans(application: Application, attacks: Sequence[Attack], *, whole: bool = True) -> Iterator[Plan]:
    """Every way out by every entrance, without a defence and behind the product's; behind single layers by the first
    entrance, since where a text comes in makes no difference to them. `whole` off: the first entrance, without
    defences and behind the product's.
    """
    everything, few = goals(), goals(entrances=ENTRANCES[:1])
    ends = ("none", application.product.name)
    for defense in (*application.defenses, application.confirmed):
        if whole or defense.name in ends:
            chosen = everything if whole and defense.name in ends else few
            yield from (Plan(attack, chosen, application, defense) for attack in attacks)
    yield from on_nulls(few, attacks, 0)
