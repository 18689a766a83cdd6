"""Verbs that build: the whole journey, or one part of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from crawltalk.core.config import load_recipe
from crawltalk.core.console import StageBoard, console
from crawltalk.core.errors import BadRecipe
from crawltalk.core.execute import build
from crawltalk.core.machine import check_fit
from crawltalk.core.run import RunFolder
from crawltalk.pipeline import STAGES

ALL = tuple(stage.name for stage in STAGES)
VERB_STAGES = {"tokenizer": ("tokenizer", "tokens")}
"""Verbs that build more than the stage of their name."""


def build_verb(
    verb: str, target: str, overlays: Sequence[Path], out: Path | None, lender: Path | None, flags: Mapping[str, str]
) -> RunFolder:
    """Build the stages of a verb (`run` means all). `target` is a preset or a run; `flags` are dotted keys of the recipe."""
    run = RunFolder(out or (target if _is_run(target) else Path("runs") / target))
    source = Path(target) / "recipe.toml" if _is_run(target) else target
    if verb != "run" and out is None and not _is_run(target) and run.exists() and not overlays and not flags:
        source = run.path / "recipe.toml"  # one more stage of a run that has its recipe already
    recipe = load_recipe(source, overlays, flags)
    names = ALL if verb == "run" else VERB_STAGES.get(verb, (verb,))
    if "pretrain" in names:
        check_fit(recipe)
    if lender is not None:
        borrowed = run.borrow(RunFolder(lender), STAGES, recipe)
        console.print(f"borrowed from {lender}: {', '.join(borrowed) or 'nothing; no stage is the same'}")
    with StageBoard({stage.name: stage.about for stage in STAGES}) as board:
        build(run, STAGES, names, recipe, board)
    _print_end(run, names[-1])
    return run


def _is_run(target: str) -> bool:
    if (Path(target) / "recipe.toml").exists():
        return True
    if "/" in target:
        raise BadRecipe(f"{target} is no run (it has no recipe.toml); start one with: crawltalk run small --out {target}")
    return False


def _print_end(run: RunFolder, last: str) -> None:
    if last == "report":
        console.print(f"report: {run.folder('report') / 'report.html'}", soft_wrap=True)
        console.print(f"next:   crawltalk chat --model {run.path}", soft_wrap=True)
    else:
        following = ALL[ALL.index(last) + 1]
        verb = "tokenizer" if following == "tokens" else following
        console.print(f"{last}: {run.folder(last)}\nnext: crawltalk {verb} {run.path}", soft_wrap=True)
