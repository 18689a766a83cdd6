"""The verb that has a model judged by programs of others."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import msgspec
from cyclopts import Parameter

from crawltalk.core.errors import BadInput, UserError
from crawltalk.core.files import folder_to_write
from crawltalk.run.console import console, errors, print_table
from crawltalk.run.folder import RunFolder
from crawltalk.verbs.arguments import named
from crawltalk.verbs.evaluate import index_of

if TYPE_CHECKING:
    from crawltalk.evals.standard import Question
    from crawltalk.judges.report import Part, Report

PROMPTS, CASES, QUESTIONS = 32, 2, 100
"""Of each probe, suite and task, unless told otherwise."""


def judge(
    program: str,
    model: str,
    *,
    only: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    data: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    limit: int | None = None,
    venv: Path | None = None,
    make: Annotated[bool, Parameter(negative=())] = False,
    out: Path | None = None,
    minutes: float = 30.0,
    max_tokens: int = 128,
    controls: bool = True,
    direct: Annotated[bool, Parameter(negative=())] = False,
    online: Annotated[bool, Parameter(negative=())] = False,
    i_may_attack_it: Annotated[bool, Parameter(negative=())] = False,
    json: Annotated[bool, Parameter(negative=(), help="Print report.json instead.")] = False,
) -> None:
    """Have a model judged by a program of others, as a client of our server, and see where we differ: how many of its
    attempts were evaluated, its hits, and our verdict on the same ones.

    Parameters
    ----------
    program
        garak, agentdojo or lm-eval.
    model
        A run, a stage of it, an imported model (smollm2), a folder in Hugging Face's layout, or the address of a server
        that runs already. Or one that shows what a judge measures: null-nonsense, null-refuser, null-parrot; for
        agentdojo also obedient, which does every task and every order.
    only
        Between commas: probes of garak (dan.DanInTheWild, or a module), suites of agentdojo, tasks of lm-eval.
    data
        For lm-eval: a file or folder of questions for each task, as for crawltalk eval.
    limit
        Prompts of a probe (32), where garak can cut it; tasks and injections of each suite (2); questions (100).
    venv
        The virtual environment that has the program; judges/environments/PROGRAM if absent.
    make
        Make this environment first, by uv or pip, from the network.
    out
        A folder for report.json, verdicts.jsonl and the program's own files. If absent judges/PROGRAM/MODEL; for
        lm-eval on a model of a run RUN/benchmarks/STAGE/lm-eval, where `crawltalk report RUN` looks for it.
    minutes
        For the program with each model. What it has done by then is reported.
    max_tokens
        The longest reply.
    controls
        Whether null models go through garak and agentdojo, too: their hits say what a hit is worth.
    direct
        lm-eval reads the folder with transformers instead of asking our server.
    online
        The program may download data and models of its own.
    i_may_attack_it
        You may attack this server, which is on another machine.
    """
    from crawltalk.judges import agentdojo, garak, judging  # these load torch
    from crawltalk.judges.environment import JUDGES, find
    from crawltalk.judges.environment import make as make_environment
    from crawltalk.judges.obedient import NAME as OBEDIENT
    from crawltalk.judges.served import CONTROLS, is_address
    from crawltalk.models import model_folder

    named("judge", program, list(JUDGES))
    if (limit is not None and limit < 1) or max_tokens < 1 or not minutes > 0:
        raise BadInput("--limit and --max-tokens are 1 or more, --minutes is above 0")
    if (direct or data) and program != "lm-eval":
        raise BadInput(
            "--direct and --data are for lm-eval: the others ask servers, with prompts of their own"
        )
    if not is_address(model) and model not in CONTROLS and (program, model) != ("agentdojo", OBEDIENT):
        model_folder(model)  # a name that means nothing is told before an environment is asked for
    names = [name.strip() for words in only for name in words.split(",") if name.strip()]
    questions = _questions(names, data, limit or QUESTIONS) if program == "lm-eval" else {}
    if program == "agentdojo":
        names = [named("suite of AgentDojo", name, agentdojo.SUITES) for name in names or agentdojo.SUITES]
    if make:
        errors.print(f"making the environment of {program}", markup=False)
        make_environment(program, venv)
    found = find(program, venv)
    out = out or _folder_for(program, model)
    folder_to_write(out)
    options = judging.Options(
        out=out,
        seconds=60 * minutes,
        max_tokens=max_tokens,
        controls=controls,
        online=online,
        confirmed=i_may_attack_it,
        progress=lambda text: errors.print(text, markup=False, soft_wrap=True),
    )
    with RunFolder(out).lock():  # two would write over each other's samples
        match program:
            case "garak":
                report = judging.by_garak(found, model, names or garak.USUAL, limit or PROMPTS, options)
            case "agentdojo":
                report = judging.by_agentdojo(found, model, names, limit or CASES, options)
            case _:
                files = dict(zip(names, data, strict=True))
                report = judging.by_lm_eval(found, model, questions, files, direct, options, index_of(model))
    if json:
        print(msgspec.json.encode(report).decode())
    else:
        _print(report, out)
    if not report.finished:
        raise UserError(f"{program} did not come to its end: {report.problem}; what it did is in {out}")


def _folder_for(program: str, model: str) -> Path:
    """Where a report goes that no person has named a folder for."""
    from crawltalk.evals.benchmarks import place_for

    place = place_for(model) if program == "lm-eval" else None
    return place / program if place else Path("judges") / program / _name_of(model)


def _name_of(model: str) -> str:
    """A name for a folder; of an address the machine and the port."""
    return urlsplit(model).netloc.replace(":", "-") if "://" in model else Path(model).name


def _questions(names: Sequence[str], data: Sequence[str], limit: int) -> "dict[str, list[Question]]":
    """Task of lm-eval -> the first questions of its file. Raises BadInput."""
    from crawltalk.evals.standard import first_questions
    from crawltalk.judges.lm_eval import TASKS

    if not names or len(names) != len(data):
        raise BadInput(
            "lm-eval needs tasks by --only and as many files of questions by --data; it knows: "
            + ", ".join(TASKS)
        )
    found = {}
    for name, path in zip(names, data, strict=True):
        named("task of lm-eval", name, list(TASKS))
        found[name], _ = first_questions(Path(path), name, limit)
    return found


def _print(report: "Report", out: Path) -> None:
    controls = list(dict.fromkeys(name for part in report.parts for name in part.controls))
    headings = [name.removeprefix("null-") for name in controls]
    print_table(
        ("part", "evaluated", "hits", "95 %", "ours", *headings),
        [_row(part, controls) for part in report.parts],
    )
    reasons = dict.fromkeys(reason for part in report.parts for reason in part.skipped)
    lines = [f"{sum(p.skipped.get(why, 0) for p in report.parts)} not evaluated: {why}" for why in reasons]
    for part in report.parts:
        lines += [f"{part.name}: {text}" for text in (*_differences(part), *_figures(part))]
    for line in (*lines, *report.notes, f"{report.judge} {report.version}: {report.seconds:.0f} s"):
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"see: {out / 'report.json'}", markup=False, soft_wrap=True)


def _row(part: "Part", controls: Sequence[str]) -> tuple[Any, ...]:
    from crawltalk.redteam.frame import Outcome

    between = "" if part.interval is None else f"{part.interval[0]:.0%}-{part.interval[1]:.0%}"
    beside = [part.controls.get(name) for name in controls]
    figures = [f"{figure.hits}/{figure.evaluated}" if figure else "" for figure in beside]
    evaluated = f"{part.evaluated}/{part.asked}"
    return (part.name, evaluated, part.hits, between, part.ours[Outcome.SUCCESS], *figures)


def _differences(part: "Part") -> list[str]:
    return [
        f"{one.count} are {'hits' if one.theirs else 'no hits'}, ours: {one.ours}"
        + (f" ({one.reason})" if one.reason else "")
        for one in part.disagreements
    ]


def _figures(part: "Part") -> list[str]:
    """In one line, the zeros of null models left out."""
    shown = [f"{name} {value:g}" for name, value in part.figures.items() if value or ", null-" not in name]
    return ["; ".join(shown)] if shown else []
