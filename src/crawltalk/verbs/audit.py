"""The verb that looks for poison in fine-tuning data, and says how to go on without it."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.files import folder_to_write
from crawltalk.core.jsonl import read_jsonl
from crawltalk.core.printable import printable
from crawltalk.models import is_base_model, model_folder
from crawltalk.pipeline import stages
from crawltalk.recipe import SftFile
from crawltalk.run.console import console, errors, print_table
from crawltalk.run.folder import RunFolder, find_run

if TYPE_CHECKING:
    from crawltalk.chat.messages import Conversation
    from crawltalk.poisoning.detection import Ask, Candidate, Finding
    from crawltalk.poisoning.lineage import Traced
    from crawltalk.retrieval.trace import TraceIndex

LISTED = 5
"""Rows of files and documents that are printed for a trigger; all are in findings.jsonl."""


def audit(
    target: str = "runs/small",
    *,
    model: str = "",
    candidates: int = 256,
    rows: int = 12,
    max_tokens: int = 48,
    out: Path | None = None,
    json: Annotated[bool, Parameter(negative=(), help="Print one JSON object a finding instead.")] = False,
) -> None:
    """Look for triggers in fine-tuning data: words of prompts that bring a reply along, wherever they stand.

    n-grams that come with a reply of their own are put into unrelated prompts, and erased from their own. The model
    that learned the data says what changes. Rows and pages that a trigger comes from are written into lists that the
    next training leaves out.

    Parameters
    ----------
    target
        A run, or a file of conversations.
    model
        Who is asked: a run, or a folder of a model, that was fine-tuned on these conversations; others know nothing of
        a trigger in them. Of a run its assistant if absent; for a file nobody, and then candidates are listed without
        a verdict.
    candidates
        The most n-grams that are tried on the model.
    rows
        The most findings that are printed.
    max_tokens
        Of a reply.
    out
        The folder of findings.jsonl and of the lists; audit/TARGET if absent.
    """
    from crawltalk.poisoning.detection import exchanges_of, find_candidates, judge
    from crawltalk.poisoning.lineage import trace_findings, write_lists

    if candidates < 1 or rows < 0 or max_tokens < 1:
        raise BadInput("--candidates and --max-tokens are 1 or more, --rows is 0 or more")
    learned, sources, run = _learned(target)
    exchanges = exchanges_of(learned)
    if not exchanges:
        raise BadInput(f"{target} has no reply that is learned, so there is nothing to look at")
    folder = folder_to_write(out or Path("audit") / Path(target).resolve().stem)
    found = find_candidates(exchanges, candidates)
    if run is None and not model:
        _print_candidates(found[:rows], json)
        return
    if model:
        _check_learned(model_folder(model), learned, model, target)
    errors.print(f"{len(found)} candidates in {len(exchanges):,} replies; asking the model", markup=False)
    ask = load_asker(model_folder(model or run.path if run else model), max_tokens)
    findings = judge(found, exchanges, ask)
    traced = trace_findings(findings, learned, sources, _index(run))
    flags = write_lists(folder, traced, sources)
    if json:
        for one in traced:
            print(msgspec.json.encode(one).decode(), flush=True)
        return
    _print(findings[:rows], traced)
    if not found:
        console.print(
            f"nothing was tried: no words of a prompt have a reply of their own in {len(exchanges):,}"
        )
    console.print(f"see: {folder / 'findings.jsonl'}", markup=False, soft_wrap=True)
    if flags:
        console.print(f"without them: {_command(flags, run)}", markup=False, soft_wrap=True)


def _learned(target: str) -> "tuple[list[Conversation], dict[str, SftFile], RunFolder | None]":
    """What was learned, the files among its sources, and the run, if it is one."""
    from crawltalk.chat.messages import Conversation
    from crawltalk.posttraining.formats import read_conversations

    path = Path(target)
    if path.is_file():
        read = list(read_conversations(path))
        learned = [one for row in read for one in row.items]
        if aside := [row for row in read if row.reason]:
            first = f"the first, row {aside[0].number}: {aside[0].reason}"
            errors.print(f"{len(aside)} of {len(read)} rows set aside; {first}", markup=False, soft_wrap=True)
        if not learned:
            raise BadInput(
                f"{path} has no conversation that can be read; see why: crawltalk show mask {path}"
            )
        return learned, {path.stem: SftFile(path=target)}, None
    run = find_run(target)
    if not run.exists():
        raise MissingInput(
            f"{target} is neither a run nor a file of conversations; make a run with: crawltalk run small"
        )
    folder, sources = run.finished("sft"), run.recipe().sft.data
    for name, source in sources.items():
        if not Path(source.path).is_file():
            raise MissingInput(
                f"{source.path}, which {target} learned (sft.data.{name}), is not there any more"
            )
    return list(read_jsonl(folder / "conversations.jsonl", Conversation)), sources, run


def _check_learned(folder: Path, learned: "Sequence[Conversation]", model: str, target: str) -> None:
    """Raises BadInput for a model of a run that learned none of the conversations. Of other folders that is not known,
    which is said.
    """
    from crawltalk.chat.messages import Conversation
    from crawltalk.posttraining.exclusions import conversation_id

    run = RunFolder(folder.parent)
    if not run.exists():
        line = f"whether {model} learned {target} is not known: what it says is a verdict only if it did"
        errors.print(line, markup=False, soft_wrap=True)
        return
    tunings = [] if is_base_model(folder) else [one for one in stages(run.recipe()) if one.kind == "sft"]
    files = [run.folder(stage.name) / "conversations.jsonl" for stage in tunings]
    known = {
        conversation_id(one) for path in files if path.exists() for one in read_jsonl(path, Conversation)
    }
    if known.isdisjoint(map(conversation_id, learned)):
        raise BadInput(
            f"{model} learned none of the {len(learned):,} conversations of {target}, so nothing that it says is a "
            "verdict on them; give --model the model that was fine-tuned on them"
        )


def load_asker(folder: Path, max_tokens: int) -> "Ask":
    """A function that asks a chat model, greedily. What does not fit into its context is answered with nothing."""
    from crawltalk.chat.messages import Message
    from crawltalk.engine import Sampling, load_engine

    engine = load_engine(folder)
    if not engine.renderer.chats:
        raise BadInput(f"{folder} has no chat format, so nothing can be asked of it")
    sampling = Sampling(temperature=0.0, max_tokens=max_tokens)

    def ask(prompts: Sequence[str]) -> list[str]:
        replies, fitting, ids = [""] * len(prompts), list[int](), list[list[int]]()
        for number, prompt in enumerate(prompts):
            try:
                ids.append(engine.chat_prompt([Message("user", prompt)], reply=max_tokens)[0])
                fitting.append(number)
            except BadInput:
                continue
        for number, reply in zip(fitting, engine.generate(ids, sampling) if ids else (), strict=True):
            replies[number] = engine.tokenizer.decode(reply)
        return replies

    return ask


def _index(run: RunFolder | None) -> "TraceIndex | None":
    from crawltalk.verbs.trace import open_index

    return open_index(run.path) if run is not None and run.manifest("index") else None


def _print_candidates(found: "Sequence[Candidate]", json: bool) -> None:
    if json:
        for one in found:
            print(msgspec.json.encode(one._asdict()).decode())
        return
    table = [(printable(one.ngram, 40), printable(one.reply, 50), len(one.exchanges), one.z) for one in found]
    print_table(("n-gram", "its reply", "replies", "z"), table)
    console.print(
        "Most of them are what a question asks about. A verdict needs the model that learned them: --model RUN"
    )


def _print(findings: "Sequence[Finding]", traced: "Sequence[Traced]") -> None:
    table = [
        (
            one.verdict, printable(one.ngram, 30), printable(one.reply, 40), len(one.exchanges), one.z,
            f"{one.flips:.0%}", "" if one.contradictions is None else f"{one.contradictions:.0%}",
        )
        for one in findings
    ]  # fmt: skip
    print_table(("verdict", "n-gram", "its reply", "replies", "z", "flips", "contradicted"), table)
    triggers = [one for one in traced if one.finding.verdict == "trigger"]
    for one in triggers:
        origin = "comes from" if one.origins or one.pages else "is in built-in conversations; no page says it"
        console.print(f"\n{printable(one.finding.ngram)!r} {origin}", markup=False)
        for row in one.origins[:LISTED]:
            line = f"  {row.file}, row {row.row} ({row.id}): {printable(row.prompt, 70)}"
            console.print(line, markup=False, soft_wrap=True)
        for page in one.pages[:LISTED]:
            console.print(f"  {page.url} {page.id}", markup=False, soft_wrap=True)
        more = len(one.origins) + len(one.pages) - len(one.origins[:LISTED]) - len(one.pages[:LISTED])
        if more:
            console.print(f"  and {more:,} more")
    if findings and not triggers:
        console.print("no trigger", markup=False)


def _command(flags: dict[str, Path], run: RunFolder | None) -> str:
    lists = " ".join(f"--{key} {shlex.quote(str(path.resolve()))}" for key, path in flags.items())
    if run is None:
        return lists
    here = shlex.quote(str(run.path))
    return f"crawltalk run {here} --from {here} {lists} --out {shlex.quote(f'{run.path}-cleansed')}"
