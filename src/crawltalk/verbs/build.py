"""Verbs that build: the whole journey, or one part of it."""

import os
import re
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from cyclopts import Parameter

from crawltalk.core.errors import BadInput, BadRecipe, UserError
from crawltalk.core.files import write_atomically
from crawltalk.pipeline import STAGES, stages
from crawltalk.posttraining.external_inputs import check_files
from crawltalk.recipe import Recipe
from crawltalk.recipe.layers import load_recipe, preset_names
from crawltalk.run.console import StageBoard, console, print_table
from crawltalk.run.execute import build, build_on_rank
from crawltalk.run.folder import RunFolder, find_run
from crawltalk.run.machine import check_fit
from crawltalk.tasks import check_counts
from crawltalk.verbs.arguments import file_to_write
from crawltalk.verbs.compiling import compiling_ahead
from crawltalk.verbs.corpus import diff_data

OWN = "own"
"""The preset for a crawl of one's own."""

Target = Annotated[str, Parameter(help="A preset (crawltalk presets) or the folder of a run.")]
Overlay = Annotated[Path, Parameter(help="TOML files laid over the preset, left to right.")]
Out = Annotated[Path | None, Parameter(help="The run's folder; runs/PRESET if absent.")]
Borrow = Annotated[
    Path | None,
    Parameter(name="--from", help="Another run, whose finished stages are reused where they are the same."),
]
Set = Annotated[
    tuple[str, ...],
    Parameter(negative=(), help="One value of the recipe, KEY=VALUE; --KEY VALUE is the same."),
]

_HOST = re.compile(
    r"(?!.*\.toml$)[a-z0-9-]+(\.[a-z0-9-]+)+(:\d+)?(/.*)?|localhost(:\d+)?(/.*)?", re.IGNORECASE
)
"""A web address whose https:// was left out."""

ExecutorName = Annotated[str | None, Parameter(help="What the data stage runs on: local or ray.")]


def run(
    target: Target = "small",
    *overlays: Overlay,
    out: Out = None,
    borrow: Borrow = None,
    executor: ExecutorName = None,
    set: Set = (),
) -> None:
    """Build every stage that is not fresh, to the report."""
    _build(None, target, overlays, out, borrow, _with_executor(executor, set))


def crawl(
    target: str = "small",
    *more: str,
    out: Out = None,
    depth: int = 2,
    pages: int = 1000,
    delay: float = 1.0,
    any_site: Annotated[bool, Parameter(negative=())] = False,
    set: Set = (),
) -> None:
    """Write the embedded crawl, whose ground truth is known; list your own files (--crawl.source); or fetch a web
    site.

    Parameters
    ----------
    target
        A preset, the folder of a run, or the address of a web page to start from.
    more
        TOML files laid over the preset; or further addresses.
    depth
        Of a web crawl: links away from the start.
    pages
        Of a web crawl: the most pages that are stored.
    delay
        Of a web crawl: seconds between two requests to one host; more if its robots.txt asks for it.
    any_site
        Of a web crawl: follow links to other hosts, too.
    """
    if "://" not in target:
        if _HOST.fullmatch(target) and not Path(target).exists():
            raise BadInput(f"{target!r} is neither a preset nor a run; for a web site write https://{target}")
        _build(("crawl",), target, [Path(word) for word in more], out, None, set)
        return
    from crawltalk.crawl.web import WebCrawl, crawl_web

    folder = out or Path("crawls") / (urlsplit(target).hostname or "web")
    settings = WebCrawl(depth=depth, pages=pages, delay=delay, same_site=not any_site)
    counts = crawl_web(
        [target, *more],
        folder,
        settings,
        lambda stored, url: console.print(f"{stored:,} {url}", markup=False),
    )
    print_table(("outcome", "URLs"), [(state, f"{count:,}") for state, count in counts.items()])
    console.print(f"crawl: {folder}", soft_wrap=True, markup=False)
    if any(folder.glob("*.warc.gz")):
        source = shlex.quote(f"{folder}/*.warc.gz")
        run = shlex.quote(f"runs/{folder.resolve().name}")
        line = f"next: crawltalk run {OWN} --crawl.source {source} --out {run}"
        console.print(line, soft_wrap=True, markup=False)


def data(
    target: Target = "small",
    *overlays: Overlay,
    out: Out = None,
    executor: ExecutorName = None,
    rows: int = 10,
    set: Set = (),
) -> None:
    """Turn raw pages into clean documents: FineWeb's steps, with the reason for every dropped page.

    `crawltalk data diff RUN RUN` compares two runs document by document; it prints at most `rows` lines.
    """
    if target == "diff":
        if len(overlays) != 2:
            raise UserError(
                "crawltalk data diff takes two runs, such as: crawltalk data diff runs/small runs/other"
            )
        diff_data(*overlays, rows=rows)
        return
    _build(("data",), target, overlays, out, None, _with_executor(executor, set))


def _with_executor(executor: str | None, settings: Sequence[str]) -> tuple[str, ...]:
    return (*settings, f"machine.executor={executor}") if executor else tuple(settings)


def tokenizer(target: Target = "small", *overlays: Overlay, out: Out = None, set: Set = ()) -> None:
    """Learn the tokenizer from the documents, write the mixture as token shards and index them."""
    _build(("tokenizer", "tokens", "index"), target, overlays, out, None, set)


def synthesize(target: Target = OWN, *overlays: Overlay, out: Out = None, set: Set = ()) -> None:
    """Make questions and answers from the documents (--synthesize.questions, --synthesize.model)."""
    _build(("synthesize",), target, overlays, out, None, set)


def pretrain(target: Target = "small", *overlays: Overlay, out: Out = None, set: Set = ()) -> None:
    """Train the base model on the token shards."""
    _build(("pretrain",), target, overlays, out, None, set)


def factuality(target: Target = "small", *overlays: Overlay, out: Out = None, set: Set = ()) -> None:
    """Ask the base model about its pages, several times each, and judge its answers (--factuality.samples)."""
    _build(("factuality",), target, overlays, out, None, set)


def sft(target: Target = "small", *overlays: Overlay, out: Out = None, set: Set = ()) -> None:
    """Fine-tune the base model on conversations made from the documents."""
    _build(("sft",), target, overlays, out, None, set)


def dpo(target: Target = "small", *overlays: Overlay, out: Out = None, set: Set = ()) -> None:
    """Train the assistant on pairs of a better and a worse reply (--dpo.data FILE)."""
    _build(("dpo",), target, overlays, out, None, set)


def reward(target: Target = "small", *overlays: Overlay, out: Out = None, set: Set = ()) -> None:
    """Train a model that scores replies on pairs of a better and a worse one (--reward.data FILE)."""
    _build(("reward",), target, overlays, out, None, set)


def rlhf(target: Target = "small", *overlays: Overlay, out: Out = None, set: Set = ()) -> None:
    """Reinforce the assistant by a reward model (--reward.data FILE --rlhf.prompts FILE)."""
    _build(("rlhf",), target, overlays, out, None, set)


def grpo(target: Target = "small", *overlays: Overlay, out: Out = None, set: Set = ()) -> None:
    """Reinforce the assistant on problems of tasks (--grpo.tasks.arithmetic 1)."""
    _build(("grpo",), target, overlays, out, None, set)


def evals(target: Target = "small", *overlays: Overlay, out: Out = None, set: Set = ()) -> None:
    """Measure what the base model and the assistant can do."""
    _build(("evals",), target, overlays, out, None, set)


def report(
    target: Target = "small",
    *overlays: Overlay,
    out: Annotated[
        Path | None,
        Parameter(
            help="The run's folder, runs/PRESET if absent; of a comparison the file, compare.html if absent."
        ),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        Parameter(negative=(), help="Two runs: write one HTML file of how they differ instead."),
    ] = None,
    set: Set = (),
) -> None:
    """Write the report: one self-contained HTML file."""
    if compare is None:
        _build(("report",), target, overlays, out, None, set)
        return
    from crawltalk.report.compare import comparison  # it loads matplotlib

    path = file_to_write(out or Path("compare.html"))
    write_atomically(path, comparison(*map(find_run, compare)).encode())
    console.print(f"comparison: {path}", soft_wrap=True, markup=False)


def _build(
    names: Sequence[str] | None,
    target: str,
    overlays: Sequence[Path],
    out: Path | None,
    lender: Path | None,
    settings: Sequence[str],
) -> None:
    run = build_stages(names, target, overlays, out=out, lender=lender, settings=settings)
    if run is not None:
        _print_end(run, names[-1] if names else "report")


def build_stages(
    names: Sequence[str] | None,
    target: str,
    overlays: Sequence[Path] = (),
    *,
    out: Path | None = None,
    lender: Path | None = None,
    settings: Sequence[str] = (),
    quiet: bool = False,
) -> RunFolder | None:
    """Build the named stages (None: all) of a preset or run where they are not fresh.

    Returns the run; None on torchrun's ranks other than 0, which only take part in trainings.
    """
    jobs = None
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # one of several processes of torchrun
        from crawltalk.train.ranks import JobBroadcast, Ranks

        jobs = JobBroadcast()
        if Ranks.from_environment().rank > 0:
            for job in jobs.receive():
                build_on_rank(job)
            return None
    if target not in preset_names():
        target = str(find_run(target).path)
    existing = (Path(target) / "recipe.toml").exists()
    if not existing and "/" in target and not target.endswith(".toml"):
        raise BadRecipe(
            f"{target} is not a run (it has no recipe.toml); start one with: crawltalk run small --out {target}"
        )
    run = RunFolder(out or (target if existing else Path("runs") / Path(target).stem))
    source = RunFolder(target) if existing else None
    if names and run.exists() and not overlays and not settings:
        source = run  # one more stage of a run that has its recipe already
    load = source.recipe if source is not None else partial(load_recipe, target)
    recipe = load(overlays, _flags(settings))
    journey = stages(recipe)
    for stage in journey:  # now, not hours later when the stage starts
        if stage.kind == "sft":
            check_counts(stage.config(recipe).tasks, f"{stage.key(recipe)}.tasks")
            check_files(stage.config(recipe), stage.key(recipe))
        if stage.kind == "grpo":
            from crawltalk.posttraining.problem_sources import check_sources

            check_sources(stage.config(recipe), stage.key(recipe))
    names = names or [stage.name for stage in journey]
    present = {stage.name for stage in journey}
    for stage in STAGES:
        if stage.name in names and stage.name not in present:
            fields = stage.optional.replace("|", " or ")
            raise BadRecipe(
                f"this recipe has no stage {stage.name}; it asks for it with {stage.kind}.{fields}, such as: "
                f"--{stage.kind}.{ASKED_FOR[stage.optional]}"
            )
    check_source(recipe, out, past_data="tokenizer" in names)
    if any(stage.makes == "base" for stage in journey if stage.name in names):
        check_fit(recipe)
    if lender is not None:
        borrowed = run.borrow(find_run(lender), journey, recipe)
        console.print(f"borrowed from {lender}: {', '.join(borrowed) or 'nothing; no stage is the same'}")
    broadcast = jobs.send if jobs else None
    if quiet:
        build(run, journey, names, recipe, lambda event: None, broadcast)
    else:
        about = {stage.name: stage.about for stage in journey}
        with StageBoard(about) as board, compiling_ahead(board) as on_event:
            build(run, journey, names, recipe, on_event, broadcast)
    if jobs:
        jobs.send(None)
    return run


def check_source(recipe: Recipe, out: Path | None, *, past_data: bool) -> None:
    """Raise BadRecipe if the recipe has no pages; and, where the build goes `past_data`, if its patterns are those
    of the embedded crawl and its pages are not.
    """
    source = recipe.crawl.source
    if not source:
        raise BadRecipe(
            f"{recipe.name} is for pages of your own; say where they are: --crawl.source 'FOLDER/*.warc.gz', or a "
            "folder of HTML files"
        )
    if source == "sample" or not past_data:
        return
    patterns = load_recipe("small")
    for section in ("tokenizer", "tokens"):
        pattern = getattr(recipe, section).include
        if pattern and pattern == getattr(patterns, section).include:
            place = f" --out {shlex.quote(str(out))}" if out else ""
            raise BadRecipe(
                f"{recipe.name} fits the embedded crawl only ({section}.include = {pattern!r}); for pages of your own: "
                f"crawltalk run {OWN} --crawl.source {shlex.quote(source)}{place}"
            )


def _flags(settings: Sequence[str]) -> dict[str, str]:
    flags = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise BadRecipe(
                f"--set takes KEY=VALUE, such as --set pretrain.optim.muon_lr=0.01, not {setting!r}"
            )
        flags[key] = value
    return flags


ASKED_FOR = {
    "samples": "samples 8",
    "questions": "questions 500",
    "depths": "depths 1,2",
    "data": "data FILE",
    "tasks|data": "tasks.arithmetic 1",
    "prompts": "prompts FILE",
}
"""What asks for an optional stage: its field -> an example."""
VERBS = (
    *("crawl", "data", "tokenizer", "synthesize", "sweep"),
    *("pretrain", "factuality", "sft", "dpo", "reward", "rlhf", "grpo", "evals", "report"),
)
"""Stages that have a verb of their own; `run` builds the others, too."""


def _print_end(run: RunFolder, last: str) -> None:
    if last == "report":
        console.print(f"report: {run.folder('report') / 'report.html'}", soft_wrap=True)
        console.print(f"next: crawltalk chat --model {run.path}", soft_wrap=True)
        return
    recipe = run.recipe()
    names = [stage.name for stage in stages(recipe)]
    following = names[names.index(last) + 1]
    verb = following if following in VERBS else "run"
    console.print(f"{last}: {run.folder(last)}\nnext: crawltalk {verb} {run.path}", soft_wrap=True)
