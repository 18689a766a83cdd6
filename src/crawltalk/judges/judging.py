"""A judgement from beginning to end: the model and the null models are served, the judge asks them, and its report is
read. What it wrote until it was ended is reported, too.

FOLDER/model/            the judge's own files of the model
FOLDER/null-.../         and of each null model
FOLDER/report.json, verdicts.jsonl
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from crawltalk.core.errors import BadInput
from crawltalk.engine import load_engine
from crawltalk.evals.benchmarks import benchmark, write_benchmark
from crawltalk.evals.standard import Asked, Question, ask
from crawltalk.judges import agentdojo, garak, lm_eval
from crawltalk.judges.environment import Environment
from crawltalk.judges.obedient import NAME as OBEDIENT
from crawltalk.judges.obedient import obedient
from crawltalk.judges.process import Ended, last_line
from crawltalk.judges.report import Report, Verdict, read_report, write_report
from crawltalk.judges.served import CONTROLS, Served, is_address, served
from crawltalk.models import model_folder
from crawltalk.redteam.endpoints import LOCAL, EndpointTarget
from crawltalk.redteam.frame import Outcome, judge
from crawltalk.redteam.kept_secrets import secret_goals
from crawltalk.redteam.scores import CAPABLE, NO_CAPABILITY
from crawltalk.retrieval.trace import TraceIndex

TWINS = 8
"""Harmless questions that show whether a model understands what it is asked."""
BESIDE = {"garak": tuple(CONTROLS), "agentdojo": ("null-refuser", "null-parrot")}
"""Null models through a judge."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a person says of a judgement."""

    out: Path
    seconds: float
    """For the judge with each model."""
    max_tokens: int = 128
    controls: bool = True
    online: bool = False
    confirmed: bool = False
    """Whether a server of another machine may be attacked."""
    progress: Callable[[str], None] = lambda text: None


def by_garak(program: Environment, model: str, probes: Sequence[str], limit: int, options: Options) -> Report:
    """A scan of a model, and of null models beside it. `limit`: prompts of a probe, where it can be cut."""
    _check_folder(options.out, "garak", model)

    def scan(at: Served, folder: Path) -> tuple[Ended, list[str]]:
        return garak.scan(
            program,
            at,
            probes,
            folder,
            limit=limit,
            max_tokens=options.max_tokens,
            seconds=options.seconds,
            online=options.online,
        )

    with served(model, max_tokens=options.max_tokens, confirmed=options.confirmed) as at:
        options.progress(f"garak asks {at.name}")
        capability = _capability(at)
        folder = options.out / "model"
        ended, command = scan(at, folder)
    report = _report("garak", program, model, [command], ended)
    report.capability = capability
    beside: dict[str, garak.GarakReport] = {}
    for name in BESIDE["garak"] if options.controls and model not in CONTROLS else ():
        # under the model's name, as probes write it into prompts
        with served(name, max_tokens=options.max_tokens, name=at.name) as null:
            options.progress(f"garak asks {name}")
            report.notes += _unfinished(name, scan(null, options.out / name)[0])
            beside[name] = garak.read(options.out / name)
    found = garak.read(folder)
    if report.finished and not found.finished:
        report.finished, report.problem = False, f"it says: {last_line(folder / garak.OUTPUT)}"
    report.parts, verdicts = garak.compare(found, beside, garak.refusals(folder))
    report.notes += garak.notes(folder)
    if capability < CAPABLE:
        report.notes.append(f"{NO_CAPABILITY}: {capability:.0%} of {TWINS} harmless questions are answered")
    return _written(options.out, report, verdicts)


def by_agentdojo(
    program: Environment, model: str, suites: Sequence[str], limit: int | None, options: Options
) -> Report:
    """AgentDojo's suites on a model, and on null models beside it. `limit`: tasks and injections of each suite."""
    _check_folder(options.out, "agentdojo", model)
    if is_address(model) and not any(f"//{host}" in model for host in LOCAL):
        raise BadInput(
            "AgentDojo asks servers of this machine only; forward the other one's port to this machine"
        )
    tasks = agentdojo.tasks(program, suites, limit)
    replies = obedient(tasks) if model == OBEDIENT else None

    def scan(at: Served, folder: Path) -> tuple[Ended, list[list[str]]]:
        return agentdojo.scan(program, at, tasks, folder, seconds=options.seconds, online=options.online)

    with served(model, max_tokens=options.max_tokens, confirmed=options.confirmed, replies=replies) as at:
        options.progress(f"AgentDojo asks {at.name}")
        ended, commands = scan(at, options.out / "model")
    beside, notes = {}, agentdojo.notes(options.out / "model")
    for name in BESIDE["agentdojo"] if options.controls and model not in CONTROLS else ():
        with served(name, max_tokens=options.max_tokens) as null:
            options.progress(f"AgentDojo asks {name}")
            notes += _unfinished(name, scan(null, options.out / name)[0])
            beside[name] = agentdojo.read(options.out / name)
    parts, verdicts = agentdojo.compare(tasks, agentdojo.read(options.out / "model"), beside)
    report = _report("agentdojo", program, model, commands, ended)
    report.parts, report.notes = parts, notes
    return _written(options.out, report, verdicts)


def by_lm_eval(
    program: Environment,
    model: str,
    questions: Mapping[str, Sequence[Question]],
    data: Mapping[str, str],
    direct: bool,
    options: Options,
    index: TraceIndex | None = None,
) -> Report:
    """Standard tasks by lm-evaluation-harness through our server, and by `crawltalk eval`. `direct`: it reads the
    model's folder with transformers instead. `data`: where the questions are from; `index`: of the model's corpus.
    """
    _check_folder(options.out, "lm-eval", model)
    if is_address(model):
        raise BadInput(
            "lm-eval needs the tokenizer in a model's folder; name the run or the folder, not an address"
        )
    folder, place = model_folder(model), options.out / "model"
    engine = load_engine(folder)
    asked: dict[str, Asked] = {}
    for name, rows in questions.items():
        options.progress(f"crawltalk eval: {name}")
        asked[name] = ask(engine, name, rows)
    lm_eval.write_tasks(place / "tasks", {name: one.questions for name, one in asked.items()})
    names, context = list(questions), engine.context
    options.progress("lm-eval")
    if direct:
        ended, command = lm_eval.scan(
            program, folder, folder, names, place, context=context, seconds=options.seconds
        )
    else:
        with served(model, max_tokens=options.max_tokens) as at:
            ended, command = lm_eval.scan(
                program, at, folder, names, place, context=context, seconds=options.seconds
            )
    report = _report("lm-eval", program, model, [command], ended)
    verdicts: list[Verdict] = []
    for name, one in asked.items():
        theirs, left_out = lm_eval.read(place, name), len(one.left_out)
        part, judged = lm_eval.compare(name, theirs, one.results)
        if left_out:
            part.asked += left_out
            part.skipped["it does not fit into the context"] = left_out
        report.parts.append(part)
        verdicts += judged
        if theirs:
            row, contaminated = benchmark(
                name,
                [one.questions[number] for number in theirs],
                list(theirs.values()),
                model=model,
                data=data[name],
                judge=f"lm-evaluation-harness {program.version}, {'folder' if direct else 'server'}",
                left_out=left_out,
                index=index,
            )
            write_benchmark(options.out, row, contaminated)
    return _written(options.out, report, verdicts)


def _report(
    name: str, program: Environment, model: str, commands: Sequence[Sequence[str]], ended: Ended
) -> Report:
    """What is known of a scan before its files are read."""
    return Report(
        judge=name,
        version=program.version,
        model=model,
        commands=[list(command) for command in commands],
        seconds=round(ended.seconds, 1),
        finished=not ended.problem,
        problem=ended.problem,
    )


def _check_folder(out: Path, name: str, model: str) -> None:
    """Raises BadInput for a folder with the report of another judge or model."""
    before = read_report(out)
    if before is not None and (before.judge, before.model) != (name, model):
        raise BadInput(f"{out} has the report of {before.judge} on {before.model}; choose another --out")


def _unfinished(name: str, ended: Ended) -> list[str]:
    return [f"{name} was not asked everything: {ended.problem}"] if ended.problem else []


def _capability(at: Served) -> float:
    """The share of harmless questions that the model answers: for the code of a door that it may tell."""
    twins = [goal.twin for goal in secret_goals(TWINS, 0) if goal.twin is not None]
    with closing(EndpointTarget(f"{at.origin}/v1", at.name, 32)) as target:
        replies = target.answer([goal.prompt for goal in twins])
    told = [judge(goal.oracle, goal.prompt, reply) for goal, reply in zip(twins, replies, strict=True)]
    return sum(verdict.outcome is Outcome.SUCCESS for verdict in told) / len(twins)


def _written(out: Path, report: Report, verdicts: Sequence[Verdict]) -> Report:
    evaluated = sum(part.evaluated for part in report.parts)
    if not evaluated:
        report.notes.append("nothing was evaluated, so this says nothing of the model")
    write_report(out, report, verdicts)
    return report
