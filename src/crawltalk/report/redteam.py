"""The chapter on the red team: what fell to which attack behind which defence, with the controls beside it."""

from collections.abc import Sequence

from crawltalk.redteam.scores import SCORES, STATIC_ONLY, Cell, cuts, read_scores
from crawltalk.report.chapter import Chapter
from crawltalk.report.html import percent, table, text
from crawltalk.report.inputs import ReportJob

NULL = "null-"


def red_team(job: ReportJob) -> Chapter | None:
    """A matrix for each target, and what it must not be read as."""
    folder = job.inputs.get("redteam")
    if folder is None or not (folder / SCORES).exists():
        return None
    cells = read_scores(folder).cells
    attacks = [
        cell
        for cell in cells
        if not cell.control and not cell.target.startswith(NULL) and cell.rate is not None
    ]
    opened = _fell([cell for cell in attacks if cell.defense == "none"])
    defended = {
        name: _fell([cell for cell in attacks if cell.defense == name])
        for name in dict.fromkeys(cell.defense for cell in attacks if cell.defense != "none")
    }
    best = min(defended.items(), key=lambda pair: pair[1], default=None)
    targets = list(dict.fromkeys(cell.target for cell in cells if not cell.target.startswith(NULL)))
    return Chapter(
        f"Attacked without a defence, what was forbidden was had in {percent(opened)} of the cases, on average over "
        "the attacks and targets"
        + (f"; behind the best defence, {text(best[0])}, in {percent(best[1])}." if best else "."),
        figure="".join(_target(name, [cell for cell in cells if cell.target == name]) for name in targets),
        reading=_nulls(cells),
        commands=["crawltalk redteam house"],
    )


def _fell(cells: Sequence[Cell]) -> float:
    """The mean share of the goals that fell."""
    return sum(cell.rate or 0.0 for cell in cells) / max(1, len(cells))


def _target(name: str, cells: Sequence[Cell]) -> str:
    defenses = list(dict.fromkeys(cell.defense for cell in cells))
    rows = []
    for attack in dict.fromkeys(cell.attack for cell in cells):
        mine = {cell.defense: cell for cell in cells if cell.attack == attack}
        first = next(iter(mine.values()))
        rows.append(
            [
                attack + (" (control)" if first.control else ""),
                f"{first.owasp}, {first.atlas}",
                *(_rate(mine.get(defense)) for defense in defenses),
            ]
        )
    rows.append(
        ["twins answered when asked plainly", "", *(_of(cells, one, "capability") for one in defenses)]
    )
    rows.append(["false refusals", "", *(_of(cells, one, "false_refusals") for one in defenses)])
    notes = {
        defense: sorted({note for cell in cells if cell.defense == defense for note in cell.notes})
        for defense in defenses
    }
    rows.append(["notes", "", *(", ".join(notes[defense]) for defense in defenses)])
    heads = ["no defence" if defense == "none" else defense for defense in defenses]
    matrix = table(["attack", "OWASP LLM 2025, MITRE ATLAS", *heads], rows)
    return f"<h3>{text(name)}</h3>{matrix}{_cuts(cells)}"


def _cuts(cells: Sequence[Cell]) -> str:
    """What each defence leaves of each family, and whether that is enough."""
    rows = [
        [
            cut.defense,
            cut.family,
            str(cut.undefended),
            str(cut.static or ""),
            str(cut.adaptive or STATIC_ONLY),
            f"{cut.false_refusals:.0%}",
            "yes" if cut.holds else "no",
        ]
        for cut in cuts(cells)
    ]
    heads = ["defence", "attacks", "undefended", "static", "adaptive", "false refusals", "holds"]
    return table(heads, rows) if rows else ""


def _rate(cell: Cell | None) -> str:
    """The share that fell with its interval; * if the attack was made for the defence."""
    if cell is None:
        return ""
    if cell.rate is None or cell.interval is None:
        return "not judged"
    low, high = cell.interval
    star = "*" if cell.adaptive else ""
    return f"{cell.rate:.0%}{star} ({low:.0%} to {high:.0%} of {cell.goals})"


def _of(cells: Sequence[Cell], defense: str, figure: str) -> str:
    value = next((getattr(cell, figure) for cell in cells if cell.defense == defense), None)
    return "" if value is None else f"{value:.0%}"


def _nulls(cells: Sequence[Cell]) -> str:
    nulls = [cell for cell in cells if cell.target.startswith(NULL)]
    fell = sum(round((cell.rate or 0.0) * cell.goals) for cell in nulls)
    asked = sum(cell.attempts for cell in nulls)
    return (
        "<p>Share of the goals that fell, with Wilson's interval at 95 %. * marks an attack that was made for the "
        f"defence; it holds where a fifth of that is left at most, at 5 % false refusals. Two null models, "
        f"which answer nonsense and refusals, were attacked as often: {fell} successes in {asked} attempts. "
        "Every attempt is in redteam/attempts.jsonl.</p>"
    )
