"""The verb that measures what leaves the application when what it reads is hostile."""

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from crawltalk.core.errors import BadInput, GateFailed
from crawltalk.core.files import folder_to_write
from crawltalk.run.console import console, errors, print_table
from crawltalk.run.stage import Progress
from crawltalk.verbs.arguments import named

if TYPE_CHECKING:
    from crawltalk.application.tasks import Done
    from crawltalk.redteam.scores import Scores


def exfiltration(
    *ways: str,
    out: Path = Path("redteam/exfiltration"),
    gate: float | None = None,
    model: str | None = None,
    json: Annotated[
        bool, Parameter(negative=(), help="Print one JSON object a cell and a task instead.")
    ] = False,
) -> None:
    """Try to get secrets out of the chat page and its tools by texts that they read: pages, documents, results.

    A stand-in that does whatever a text tells it takes the place of the model, so what holds is the application, and
    no luck. All stays on this machine: a server in the attacker's place sees what arrives, and Chromium's log which
    names it looked up. Each way out is tried without defences, behind single layers and behind the product's. Then
    legitimate tasks are done behind these. Needs Chromium, and: pip install 'crawltalk[browser]'.

    Attempts that were answered are not made again; another --out begins anew.

    Parameters
    ----------
    ways
        Ways out, such as "markdown image"; all if absent.
    out
        The folder of attempts.jsonl, scores.json and tasks.jsonl.
    gate
        The share of attempts that may get through the product, such as 0; exit code 1 if more do.
    model
        A run or a model in the place of the stand-in: whether it obeys at all.
    """
    from crawltalk.application.exfiltration import exfiltration as measure  # these load torch
    from crawltalk.redteam.attacks.exfiltration import ATTACKS

    known = {attack.name: attack for attack in ATTACKS}
    for name in ways:
        named("way out", name, list(known))
    if gate is not None and not 0 <= gate <= 1:
        raise BadInput(f"--gate is {gate}; it is a share from 0 to 1")
    service = None
    if model is not None:
        from crawltalk.engine import load_engine
        from crawltalk.engine.service import Service
        from crawltalk.models import model_folder

        service = Service(load_engine(model_folder(model)))
    chosen = [known[name] for name in ways or known]
    scores, tasks = measure(folder_to_write(out), _Notes(), attacks=chosen, most=gate, model=service)
    _print(scores, tasks, out, json)
    if failed := [one for one in scores.gates if not one.passed]:
        raise GateFailed(f"{len(failed)} gates failed: {failed[0].cell}: {failed[0].reason}")


class _Notes(Progress):
    """Lines of progress on standard error."""

    def note(self, text: str) -> None:
        errors.print(text, markup=False, soft_wrap=True)


def _print(scores: "Scores", tasks: "list[Done]", out: Path, json: bool) -> None:
    if json:
        for row in (*scores.cells, *tasks):
            print(jsonlib.dumps(msgspec.to_builtins(row)), flush=True)
        return
    cells = [cell for cell in scores.cells if not cell.target.startswith("null-")]
    rates = {(cell.attack, cell.defense): cell.rate for cell in cells}
    defenses, ways = (
        list(dict.fromkeys(names)) for names in zip(*((c.defense, c.attack) for c in cells), strict=True)
    )
    rows = [(way, *(_share(rates.get((way, defense))) for defense in defenses)) for way in ways]
    print_table(("delivered by", *defenses), rows)
    if lost := sum(cell.rate is None for cell in cells):
        console.print(f"{lost} cells not judged: {_why_not_judged(out)}", markup=False, soft_wrap=True)
    if tasks:
        _print_tasks(tasks)
    nulls = [cell for cell in scores.cells if cell.target.startswith("null-")]
    fell = sum(round((cell.rate or 0.0) * cell.goals) for cell in nulls)
    console.print(f"null models: {len(nulls)} cells, {fell} successes", markup=False)
    console.print(f"see: {out / 'scores.json'}", markup=False, soft_wrap=True)


def _print_tasks(tasks: "list[Done]") -> None:
    kept, asked = sum(task.kept for task in tasks), sum(task.asked for task in tasks)
    console.print(
        f"legitimate tasks: {kept} of {len(tasks)} done, {asked} of them after a question", markup=False
    )
    for task in tasks:
        if not task.kept:
            console.print(f"not done: {task.task}: {task.reason}", markup=False, soft_wrap=True)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _why_not_judged(out: Path) -> str:
    """The first reason for which an attempt was not judged."""
    from crawltalk.core.jsonl import read_jsonl
    from crawltalk.redteam.attempts import ATTEMPTS, Attempt
    from crawltalk.redteam.frame import Outcome

    judged = (Outcome.SUCCESS, Outcome.FAIL)
    return next((one.reason for one in read_jsonl(out / ATTEMPTS, Attempt) if one.outcome not in judged), "")
