"""The verb that shows claims about learning, each by an experiment with its controls."""

import json as jsonlib
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from crawltalk.core.errors import BadInput, UserError
from crawltalk.core.files import write_atomically
from crawltalk.recipe import Machine
from crawltalk.recipe.machine import derive_machine
from crawltalk.run.console import clock, console, errors, number, print_table
from crawltalk.verbs.arguments import named

if TYPE_CHECKING:
    from crawltalk.lab.conduct import Result
    from crawltalk.lab.experiment import Experiment

PAGE = "lab.html"
"""In the folder of results: all claims with their verdicts and figures."""


def lab(
    *names: str,
    all: Annotated[bool, Parameter(negative=(), help="Run all experiments.")] = False,
    seeds: int | None = None,
    out: Path = Path("lab"),
    workers: int | None = None,
    json: Annotated[
        bool, Parameter(negative=(), help="Print one JSON object an experiment instead.")
    ] = False,
) -> None:
    """List the lab's claims with their verdicts, or test some of them: `crawltalk lab rl_selects`.

    A finished seed is not run again; remove its seed-N.json and its folder to do so. The same command continues what
    was interrupted. An experiment that fails is set aside, and the others go on.

    Parameters
    ----------
    names
        Experiments to run. None: list all.
    seeds
        How many seeds; if absent, as many as the experiment says (3). The verdict is on all that are measured in the
        folder of results, more than these if more are there.
    out
        The folder of results: lab.html shows them all; NAME/result.json, NAME/figure.svg, NAME/seed-N.json.
    workers
        Cores that seeds run on, side by side; all if absent.
    """
    from crawltalk.lab import EXPERIMENTS  # it loads torch
    from crawltalk.lab.conduct import conduct, read_result
    from crawltalk.report.claims import claims_page, read_claims

    if seeds is not None and seeds < 1:
        raise BadInput(f"--seeds is {seeds}; it is a number of seeds, 1 at least")
    by_name = {experiment.name: experiment for experiment in EXPERIMENTS}
    for name in names:
        named("experiment", name, list(by_name))
    chosen = list(by_name) if all else list(dict.fromkeys(names))
    if not chosen:
        _list(EXPERIMENTS, {name: read_result(out, name) for name in by_name}, json)
        return
    done = count(1)

    def show(result: "Result") -> None:
        write_atomically(out / PAGE, claims_page(read_claims(out)).encode())
        _print(result, out, json, f"{next(done)} of {len(chosen)}")

    machine = derive_machine(Machine(workers=workers))
    failures = conduct([by_name[name] for name in chosen], out, machine, seeds, _show, show)
    for name, error in failures.items():
        errors.print(f"{name} failed: {error}", markup=False, soft_wrap=True)
    for error in failures.values():
        if not isinstance(error, UserError):
            raise error
    if failures:
        raise UserError(
            f"{len(failures)} of {len(chosen)} experiments failed: {', '.join(failures)}; the same command tries "
            "them again"
        )


def _list(experiments: "tuple[Experiment, ...]", results: "dict[str, Result | None]", json: bool) -> None:
    if json:
        for experiment in experiments:
            about = {
                key: getattr(experiment, key) for key in ("name", "claim", "source", "prediction", "method")
            }
            print(jsonlib.dumps(about | _found(results[experiment.name])))
        return
    verdicts = {name: result.judgement.verdict if result else "" for name, result in results.items()}
    print_table(
        ("name", "claim", "verdict"), [(one.name, one.claim, verdicts[one.name]) for one in experiments]
    )


def _print(result: "Result", out: Path, json: bool, which: str) -> None:
    if json:
        print(jsonlib.dumps(msgspec.to_builtins(result)), flush=True)
        return
    judgement = result.judgement
    effects = "  ".join(f"{name} {value:.3g}" for name, value in judgement.effect.items())
    console.print(
        f"{result.experiment} ({which}): {result.claim}\n"
        f"{judgement.verdict}, {len(result.seeds)} seeds, {clock(sum(result.cpu_seconds))} of CPU time: "
        f"{judgement.summary}\n{effects}\nsee: {out / PAGE}",
        markup=False,
        soft_wrap=True,
    )


def _found(result: "Result | None") -> dict[str, Any]:
    """What came out, over all seeds; null where nothing has."""
    if result is None:
        return dict.fromkeys(("verdict", "effect", "ranges", "seeds", "cpu_seconds", "summary"))
    judged = msgspec.to_builtins(result.judgement)
    spent = round(sum(result.cpu_seconds), 2)
    return judged | {"ranges": result.ranges, "seeds": len(result.seeds), "cpu_seconds": spent}


def _show(event: dict[str, Any]) -> None:
    """One line of a seed's progress, to standard error."""
    if event["event"] == "progress":
        figures = [f"{name} {number(value)}" for name, value in event.items() if name not in _COUNTED]
        total = f" / {event['total']:,.0f}" if event["total"] else ""
        text = "  ".join([f"{event['done']:,.0f}{total} {event['unit']}", *figures])
    else:
        text = event["text"]
    errors.print(f"{event['stage']}: {text}", markup=False, soft_wrap=True)


_COUNTED = {"event", "stage", "done", "total", "unit"}
