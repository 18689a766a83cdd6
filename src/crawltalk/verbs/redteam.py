"""The verb that attacks a model, an endpoint or the built-in house, and says what held."""

import json as jsonlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from crawltalk.core.errors import BadInput, GateFailed
from crawltalk.core.files import folder_to_write
from crawltalk.models import model_folder
from crawltalk.recipe import Machine
from crawltalk.recipe.machine import derive_machine
from crawltalk.run.console import console, errors, print_table
from crawltalk.run.stage import Progress
from crawltalk.verbs.arguments import file_to_write, named

if TYPE_CHECKING:
    from crawltalk.redteam.attempts import Attempt
    from crawltalk.redteam.frame import Attack, Target
    from crawltalk.redteam.scan import Plan
    from crawltalk.redteam.scores import Cell, Cut, Scores

HOUSE, PORTER = "house", "porter"
MAX_TOKENS = 128
"""Of a reply of a model or an endpoint."""
HEADS = ("attack", "target", "defence", "fell", "95 %", "an attempt", "twins", "false refusals", "notes")


def redteam(
    target: str = HOUSE,
    *,
    attacks: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    defenses: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    templates: Path | None = None,
    goals: int = 12,
    searched: int = 6,
    budget: int = 8,
    seeds: int = 1,
    out: Path = Path("redteam"),
    gate: float | None = None,
    sarif: Path | None = None,
    junit: Path | None = None,
    model: str = "",
    max_tokens: int | None = None,
    i_may_attack_it: Annotated[bool, Parameter(negative=())] = False,
    replay: int | None = None,
    workers: int | None = None,
    json: Annotated[bool, Parameter(negative=(), help="Print one JSON object a cell instead.")] = False,
) -> None:
    """Attack a target and print what fell: the built-in house, a model, or an endpoint. All that is forbidden is
    harmless: keys of doors that do not exist, and made-up secrets.

    Attempts that were answered are not made again: the same command continues, and what changed needs another --out.

    Parameters
    ----------
    target
        house: small assistants, brought up on the spot, behind each defence; porter: the same for one that reads
        pictures and hears words; or a run, a folder of a model, or the address of an OpenAI-compatible endpoint, which
        are told secrets to keep.
    attacks
        Names between commas; if absent, all that the target can be asked: pictures and sounds where it reads them;
        searches behind a form, such as base64+gcg, only of the house.
    defenses
        Names between commas; all if absent. Of a model or an endpoint: none, "perplexity filter" (needs weights),
        SmoothLLM.
    templates
        A file of jailbreak templates of your own, with {request} in each, as the attack in_the_wild: a text file with
        lines of --- between them, or a table with a column `template` or `text`.
    goals
        Doors or secrets.
    searched
        Doors of the house for which suffixes are searched for.
    budget
        Attempts of an attack at each goal.
    seeds
        Houses, or sets of secrets.
    out
        The folder of attempts.jsonl and scores.json.
    gate
        The share of goals that may fall, such as 0.2; exit code 1 if more do, or if a goal was not judged.
    sarif
        A file to write the findings to, as SARIF 2.1.0.
    junit
        A file to write the gates to, as JUnit's XML.
    model
        The model's name at the endpoint; the first that it lists if absent.
    max_tokens
        Of a reply of a model or an endpoint: 128 if absent; of a replay as many as the attempt had.
    i_may_attack_it
        You may attack this endpoint, which is on another machine.
    replay
        Ask the attempt in this line of OUT/attempts.jsonl once more, and print both replies.
    """
    from crawltalk.redteam.attempts import ATTEMPTS, read_attempt  # these load torch
    from crawltalk.redteam.exports import write_junit, write_sarif
    from crawltalk.redteam.scan import scan

    counts = (goals, searched, budget, seeds, MAX_TOKENS if max_tokens is None else max_tokens)
    if min(counts) < 1 or (gate is not None and not 0 <= gate <= 1):
        raise BadInput(
            "--goals, --searched, --budget, --seeds and --max-tokens are 1 or more, --gate is from 0 to 1"
        )
    folder_to_write(out)
    for path, flag in ((sarif, "--sarif"), (junit, "--junit")):
        if path is not None:
            file_to_write(path, flag)
    chosen = _attacks(attacks, templates, everything=target == HOUSE)
    machine = derive_machine(Machine(workers=workers))
    if replay is not None:
        attempt = read_attempt(out / ATTEMPTS, replay)
        most = max_tokens or attempt.max_tokens or MAX_TOKENS
        _replay(attempt, _target(target, model, most, i_may_attack_it, out))
        return
    if target == PORTER:
        plans = _porter(chosen, _names(defenses), out, machine, seeds)
    elif target == HOUSE:
        plans = _house(chosen, _names(defenses), out, machine, goals, searched, seeds)
    else:
        one = _target(target, model, max_tokens or MAX_TOKENS, i_may_attack_it, out)
        asked = chosen if attacks else _readable(chosen, one)
        plans = _plain(one, asked, _names(defenses), goals, seeds)
    scores = scan(plans, out, budget=budget, progress=_Notes(), most=gate)
    if sarif is not None:
        write_sarif(sarif, scores, out / "attempts.jsonl")
    if junit is not None:
        write_junit(junit, scores)
    _print(scores, out, json)
    if failed := [one for one in scores.gates if not one.passed]:
        raise GateFailed(
            f"{len(failed)} of {len(scores.gates)} gates failed: {failed[0].cell}: {failed[0].reason}"
            + (f"; the others are in {out / 'scores.json'}" if len(failed) > 1 else "")
        )


def _names(given: Sequence[str]) -> list[str]:
    return [name.strip() for words in given for name in words.split(",") if name.strip()]


def _attacks(given: Sequence[str], templates: Path | None, everything: bool) -> "Mapping[str, Attack]":
    from crawltalk.redteam.attacks import ATTACKS, QUICK
    from crawltalk.redteam.attacks.templates import IN_THE_WILD, in_the_wild, read_templates

    known = dict(ATTACKS)
    if templates is None and IN_THE_WILD in _names(given):
        raise BadInput(f"the attack {IN_THE_WILD} takes templates of yours: --templates FILE")
    if templates is not None:
        found, aside = read_templates(templates)
        if aside:
            errors.print(
                f"{len(aside)} templates set aside, {len(found)} used; {aside[0]}",
                markup=False,
                soft_wrap=True,
            )
        wild = in_the_wild(found)
        known[wild.name] = wild
    names = [named("attack", name, list(known)) for name in _names(given)] or [
        name for name in known if everything or name in QUICK or name not in ATTACKS
    ]
    return {name: known[name] for name in names}


def _house(
    attacks: "Mapping[str, Attack]",
    defenses: Sequence[str],
    out: Path,
    machine: Machine,
    goals: int,
    searched: int,
    seeds: int,
) -> "Iterator[Plan]":
    from crawltalk.redteam.scan import HOUSE as NAMES
    from crawltalk.redteam.scan import house

    wanted = [named("defence", name, NAMES) for name in defenses] or NAMES
    for seed in range(seeds):
        yield from house(
            seed, out, machine, Progress(), doors=goals, searched=searched, attacks=attacks, defenses=wanted
        )


def _porter(
    attacks: "Mapping[str, Attack]", defenses: Sequence[str], out: Path, machine: Machine, seeds: int
) -> "Iterator[Plan]":
    from crawltalk.redteam.porter import DEFENSES, porter

    wanted = [named("defence", name, DEFENSES) for name in defenses] or DEFENSES
    for seed in range(seeds):
        yield from porter(seed, out, machine, Progress(), attacks=list(attacks), defenses=wanted)


def _readable(attacks: "Mapping[str, Attack]", target: "Target") -> "Mapping[str, Attack]":
    """Those for which the target reads what they send; of an endpoint that is not known."""
    reads = getattr(target, "reads", ())
    return {name: one for name, one in attacks.items() if not one.reads or one.reads in reads}


def _target(name: str, model: str, max_tokens: int, confirmed: bool, out: Path) -> "Target":
    from crawltalk.redteam.endpoints import EndpointTarget, check_address
    from crawltalk.redteam.targets import EngineTarget, load_target

    if "://" in name:
        check_address(name, confirmed)
        return EndpointTarget(name, model, max_tokens)
    own = {HOUSE: out / "house" / "0" / "assistant", PORTER: out / "porter" / "0" / "refusals"}
    folder = own[name] if name in own else model_folder(name)
    target: EngineTarget = load_target(name, folder, max_tokens)
    return target


def _plain(
    target: "Target", attacks: "Mapping[str, Attack]", defenses: Sequence[str], goals: int, seeds: int
) -> "Iterator[Plan]":
    from crawltalk.redteam.defenses import SMOOTH, perplexity_filter
    from crawltalk.redteam.frame import NO_DEFENSE
    from crawltalk.redteam.kept_secrets import secret_goals
    from crawltalk.redteam.scan import against

    for seed in range(seeds):
        secrets = secret_goals(goals, seed)
        twins = [goal.twin.prompt for goal in secrets if goal.twin is not None]
        known = {one.name: one for one in (NO_DEFENSE, SMOOTH)}
        if target.white_box is not None:
            known |= {one.name: one for one in (perplexity_filter(twins),)}
        names = [named("defence", name, list(known)) for name in defenses] or ["none"]
        yield from against(target, secrets, list(attacks.values()), [known[name] for name in names], seed)


def _replay(attempt: "Attempt", target: "Target") -> None:
    from crawltalk.redteam.frame import judge

    [reply] = target.answer([attempt.prompt])
    outcome, reason = judge(attempt.oracle, attempt.prompt, reply)
    console.print(f"asked: {attempt.prompt.request}", markup=False, soft_wrap=True)
    console.print(f"then: {attempt.outcome}: {attempt.reply.text}", markup=False, soft_wrap=True)
    console.print(f"now: {outcome}: {reply.text or reason}", markup=False, soft_wrap=True)


class _Notes(Progress):
    """Lines of progress on standard error."""

    def note(self, text: str) -> None:
        errors.print(text, markup=False, soft_wrap=True)


def _print(scores: "Scores", out: Path, json: bool) -> None:
    if json:
        for cell in scores.cells:
            print(jsonlib.dumps(msgspec.to_builtins(cell)), flush=True)
        return
    from crawltalk.redteam.scores import NOTES, cuts

    own = [cell for cell in scores.cells if not cell.target.startswith("null-")]
    print_table(HEADS, [_row(cell) for cell in own])
    for note in dict.fromkeys(note for cell in own for note in cell.notes):
        console.print(f"{note}: {NOTES[note]}", markup=False, soft_wrap=True)
    if lines := [_cut(cut) for cut in cuts(scores.cells)]:
        heads = ("family", "target", "defence", "undefended", "static", "adaptive", "false refusals", "holds")
        print_table(heads, lines)
    nulls = [cell for cell in scores.cells if cell.target.startswith("null-")]
    fell = sum(round((cell.rate or 0.0) * cell.goals) for cell in nulls)
    console.print(f"null models: {len(nulls)} cells, {fell} successes", markup=False)
    console.print(f"see: {out / 'scores.json'}", markup=False, soft_wrap=True)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _cut(cut: "Cut") -> tuple[Any, ...]:
    """What a defence leaves of a family of attacks, and whether it holds."""
    from crawltalk.redteam.scores import STATIC_ONLY

    return (
        cut.family, cut.target, cut.defense, str(cut.undefended), str(cut.static or ""),
        str(cut.adaptive or STATIC_ONLY), _share(cut.false_refusals), "yes" if cut.holds else "no",
    )  # fmt: skip


def _row(cell: "Cell") -> tuple[Any, ...]:
    fell = _share(cell.rate) or "not judged"
    between = "" if cell.interval is None else f"{cell.interval[0]:.0%}-{cell.interval[1]:.0%}"
    return (
        cell.attack, cell.target, cell.defense, fell, between, _share(cell.an_attempt), _share(cell.twin),
        _share(cell.false_refusals), ", ".join(cell.notes),
    )  # fmt: skip
