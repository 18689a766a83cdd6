"""The verb that evaluates any model on local files, on the batteries, and on questions about a run's pages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter
from rich.markup import escape

from crawltalk.core.errors import BadInput
from crawltalk.core.files import folder_to_write
from crawltalk.models import is_base_model, model_folder, place_of
from crawltalk.run.console import console, errors, print_table
from crawltalk.run.folder import RunFolder, find_run
from crawltalk.verbs.arguments import named

if TYPE_CHECKING:
    from crawltalk.engine import Engine
    from crawltalk.evals.benchmarks import Benchmark
    from crawltalk.evals.results import Comparison, Mean, Result
    from crawltalk.evals.standard import Asked, Question
    from crawltalk.retrieval.trace import TraceIndex

_LIMITS = {"context": 16, "battery": 40}
_SHOWN = 3


def evaluate(
    model: str,
    *,
    tasks: Annotated[tuple[str, ...], Parameter(negative=())],
    data: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    limit: int | None = None,
    out: Path | None = None,
    shots: int = 0,
    examples: Path | None = None,
    chat: bool | None = None,
    against: Path | None = None,
    max_tokens: int | None = None,
    seed: int = 0,
    json: Annotated[bool, Parameter(negative=(), help="Print one JSON object instead.")] = False,
) -> None:
    """Evaluate any model, by the one decoder and from local files only.

    Parameters
    ----------
    model
        A run, a stage of it, an imported model (smollm2), or a folder in Hugging Face's layout.
    tasks
        Between commas: arc_challenge, arc_easy, commonsense_qa, mmlu, truthfulqa, truthfulqa_mc2, gsm8k_last_number,
        humaneval, exact_match (each with --data FILE); word_problems, letters, dots, decimals; context (with --data
        RUN).
    data
        Where the questions of a task are: a JSONL, JSON, CSV or Parquet file as it is published, or a folder of such
        files (MMLU's); or a run. Given once for each task that needs it, in their order.
    limit
        The first so many questions, of MMLU those of each subject in turn; of a battery the problems of each kind (40),
        of `context` the pages for each number of repeats (16).
    out
        A folder for TASK.jsonl, one row an item, scores.json and benchmarks.json. If absent: of a model of a run
        RUN/benchmarks/STAGE, where `crawltalk report RUN` looks for it; of another one evals/MODEL.
    shots
        Solved examples in front of each question, the first ones of --examples, or of MMLU's folder dev: those of the
        question's subject.
    examples
        A file of solved examples, in the forms of --data.
    chat
        Ask in the model's chat format. If absent: batteries and `context` do, if the model is no base model; standard
        tasks do not, as in lm-evaluation-harness.
    against
        The --out folder of another model: the difference on the same items, with its standard error.
    max_tokens
        The longest reply to a question of gsm8k_last_number (256), humaneval (1,024) or exact_match (32).
    """
    from crawltalk.evals.benchmarks import place_for
    from crawltalk.evals.results import read_results

    names = list(dict.fromkeys(name for given in tasks for name in given.split(",") if name))
    sources = _sources(names, data)
    if min(1 if limit is None else limit, 1 if max_tokens is None else max_tokens) < 1 or shots < 0:
        raise BadInput("--limit and --max-tokens are 1 or more, --shots is 0 or more")
    before = {name: read_results(against, name) for name in names} if against is not None else {}
    shown = {name: _examples(name, Path(source), examples) for name, source in sources.items() if shots}
    asking = _Asking(model=model, limit=limit, shots=shots, chat=chat, max_tokens=max_tokens, seed=seed)
    folder = model_folder(model)
    out = out or place_for(model) or Path("evals") / Path(model).name
    folder_to_write(out)
    with RunFolder(out).lock():  # two would lose each other's rows of benchmarks.json
        engine, measured = _measure(asking, folder, names, sources, shown, before, out)
    if not measured.results:
        raise BadInput(_unfit(measured.unfit, engine.context))
    _tell(measured, engine, folder, out, against, json=json)
    if measured.unfit:
        raise BadInput(_unfit(measured.unfit, engine.context))


@dataclass(frozen=True, kw_only=True)
class _Asking:
    """What a person says of how questions are asked; the fields are the verb's parameters."""

    model: str
    limit: int | None
    shots: int
    chat: bool | None
    max_tokens: int | None
    seed: int


@dataclass(frozen=True)
class _Measured:
    """What came of all tasks."""

    results: "list[Result]" = field(default_factory=list)
    benchmarks: "list[Benchmark]" = field(default_factory=list)
    differences: "list[Comparison]" = field(default_factory=list)
    unfit: list[str] = field(default_factory=list)
    """Tasks of which nothing fits into the context."""


def _measure(
    asking: _Asking,
    folder: Path,
    names: Sequence[str],
    sources: Mapping[str, str],
    shown: "Mapping[str, list[Question]]",
    before: "Mapping[str, list[Result]]",
    out: Path,
) -> "tuple[Engine, _Measured]":
    """Ask all tasks, and write each one's files when it is done. `shown`: solved examples of a task; `before`: another
    model's results.
    """
    from crawltalk.engine import load_engine
    from crawltalk.evals.benchmarks import benchmark, write_benchmark
    from crawltalk.evals.results import compare, write_results

    index = index_of(asking.model)
    engine = load_engine(folder)
    if asking.chat and not engine.renderer.chats:
        raise BadInput(f"{folder} has no chat format; leave --chat out")
    by_itself = engine.renderer.chats and not is_base_model(folder)
    speaks = by_itself if asking.chat is None else asking.chat
    measured = _Measured()
    for name in names:
        source = sources.get(name, "")
        if name in _standard():
            asked = _ask(engine, name, _read(Path(source), name, asking.limit), shown.get(name, []), asking)
            results = asked.results
            if results:
                row, contaminated = benchmark(
                    name,
                    asked.questions,
                    [result.scores for result in results],
                    model=asking.model,
                    data=source,
                    shots=asking.shots,
                    chat=bool(asking.chat),
                    left_out=len(asked.left_out),
                    index=index,
                )
                write_benchmark(out, row, contaminated)
                measured.benchmarks.append(row)
        elif name == "context":
            results = _ask_pages(engine, source, asking.limit, asking.seed, chat=speaks)
        else:
            from crawltalk.evals.abilities import ask_battery

            count = _LIMITS["battery"] if asking.limit is None else asking.limit
            results = ask_battery(engine, name, count, chat=speaks, seed=asking.seed)
        if not results:
            measured.unfit.append(name)
            continue
        write_results(out, name, results)
        measured.results.extend(results)
        if name in before:
            measured.differences.extend(compare(before[name], results))
    return engine, measured


def _tell(
    measured: _Measured, engine: "Engine", folder: Path, out: Path, against: Path | None, *, json: bool
) -> None:
    from crawltalk.evals.results import means

    rows = means(measured.results)
    if json:
        told = {
            "model": str(folder),
            "means": rows,
            "benchmarks": measured.benchmarks,
            "differences": measured.differences,
        }
        print(msgspec.json.encode(told).decode())
    else:
        print_benchmarks(measured.benchmarks)
        others = [row for row in rows if row.task not in _standard()]
        _print(others, measured.differences, engine, out, against)


def _unfit(names: Sequence[str], context: int) -> str:
    return (
        f"{', '.join(names)}: nothing fits into the model's context of {context} tokens, which questions share with "
        "examples (--shots) and replies (--max-tokens); lower these, or take a model that reads more"
    )


def index_of(model: str) -> "TraceIndex | None":
    """The index over the corpus of a model's run, if it is of a run that has one."""
    from crawltalk.verbs.trace import open_index

    place = place_of(model)
    return open_index(place[0].path) if place and place[0].manifest("index") else None


def _examples(name: str, source: Path, examples: Path | None) -> "list[Question]":
    """What stands solved before the questions. Raises BadInput if nothing says where it is."""
    if name not in _standard():
        return []
    if examples is None and not (source / "dev").is_dir():
        raise BadInput("--shots needs --examples FILE, from which the first ones are taken")
    return _read(examples or source, name, None, split="dev")


def _standard() -> Sequence[str]:
    from crawltalk.evals.standard import STANDARD

    return list(STANDARD)


def _sources(names: Sequence[str], data: Sequence[str]) -> dict[str, str]:
    """Task -> the --data that it reads. Raises BadInput for an unknown task, or too few or too many --data."""
    from crawltalk.evals.batteries import BATTERIES

    known = [*_standard(), *BATTERIES, "context"]
    if not names:
        raise BadInput(f"--tasks names none; there are: {', '.join(known)}")
    for name in names:
        named("task", name, known)
    needing = [name for name in names if name not in BATTERIES]
    given = list(data) * max(1, len(needing)) if len(data) == 1 else list(data)
    if len(given) != len(needing):
        needed = ", ".join(needing) or "none of these tasks"
        raise BadInput(f"--data is given {len(data)} times; it is needed once for each of: {needed}")
    return dict(zip(needing, given, strict=True))


def _read(path: Path, name: str, limit: int | None, split: str = "test") -> "list[Question]":
    """The first questions of a file; rows that are none are left out, and named."""
    from crawltalk.evals.standard import first_questions

    questions, left_out = first_questions(path, name, limit, split=split)
    _report_left_out(path.name, left_out)
    return questions


def _report_left_out(name: str, left_out: Sequence[str]) -> None:
    if left_out:
        more = f" and {len(left_out) - _SHOWN} more" if len(left_out) > _SHOWN else ""
        text = f"{name}: left out {len(left_out)}: {'; '.join(left_out[:_SHOWN])}{more}"
        errors.print(f"[yellow]{escape(text)}", soft_wrap=True)


def _ask(
    engine: "Engine",
    name: str,
    questions: "list[Question]",
    examples: "list[Question]",
    asking: _Asking,
) -> "Asked":
    from crawltalk.evals.standard import ask

    with errors.status(name) as status:
        asked = ask(
            engine,
            name,
            questions,
            examples=examples,
            shots=asking.shots,
            chat=bool(asking.chat),
            max_tokens=asking.max_tokens,
            progress=lambda done: status.update(f"{name}: {done} of {len(questions)}"),
        )
    _report_left_out(name, asked.left_out)
    return asked


def _ask_pages(engine: "Engine", source: str, limit: int | None, seed: int, *, chat: bool) -> "list[Result]":
    from crawltalk.evals.context import ask_pages, page_questions, read_texts
    from crawltalk.retrieval.passages import Passages

    run = find_run(source)
    texts = read_texts(run.finished("data"))
    pages = page_questions(run.finished("tokens"), texts, _LIMITS["context"] if limit is None else limit)
    with errors.status("context") as status:

        def progress(done: int, total: int) -> None:
            status.update(f"context: {done} of {total}")

        return ask_pages(engine, pages, texts, Passages.of_run(run), chat=chat, seed=seed, progress=progress)


def print_benchmarks(rows: "Sequence[Benchmark]") -> None:
    """A line for each metric of each task."""
    lines = []
    for row in rows:
        for metric, one in row.scores.items():
            low, high = one.interval
            counted = ["" if one is None else one.contaminated for one in (row.contamination, row.tuning)]
            clean = row.clean.get(metric)
            lines.append(
                (
                    f"{row.task}, {metric}",
                    one.score,
                    f"{low:.2f}-{high:.2f}",
                    one.chance,
                    one.centred,
                    one.n,
                    *counted,
                    "" if clean is None else clean.score,
                )
            )
    if lines:
        heads = (
            "benchmark",
            "score",
            "95 %",
            "chance",
            "centred",
            "questions",
            "in corpus",
            "in tuning",
            "others",
        )
        print_table(heads, lines)


def _print(
    rows: "Sequence[Mean]",
    differences: "Sequence[Comparison]",
    engine: "Engine",
    out: Path,
    against: Path | None,
) -> None:
    from crawltalk.evals.abilities import computation

    def name(group: dict[str, str]) -> str:
        return ", ".join(group.values())

    if rows:
        print_table(
            ("task", "group", "metric", "score", "standard error", "items", "tokens before the answer"),
            [
                (row.task, name(row.group), row.metric, row.score, row.stderr, row.n, row.tokens)
                for row in rows
            ],
        )
    if any(row.tokens for row in rows):
        _, flops, per_position = computation(engine.shape)
        console.print(
            f"each token costs {flops / 1e6:,.1f} MFLOP, and {per_position / 1e3:,.1f} kFLOP for each before it"
        )
    if differences:
        console.print(f"\nminus {escape(str(against))}, on the same items", soft_wrap=True)
        print_table(
            ("task", "group", "metric", "difference", "standard error", "better", "worse", "p", "items"),
            [
                (
                    row.task,
                    name(row.group),
                    row.metric,
                    row.difference,
                    row.stderr,
                    row.better,
                    row.worse,
                    row.p,
                    row.n,
                )
                for row in differences
            ],
        )
    console.print(f"every item: {escape(str(out))}", soft_wrap=True)
