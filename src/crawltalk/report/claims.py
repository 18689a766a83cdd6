"""What the lab found: claims about how models learn, with their verdicts and figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.report.chapter import anchor
from crawltalk.report.html import page, table, text

CLAIMS: Mapping[str, tuple[str, ...]] = {
    "Crawl": ("filtering", "language_threshold", "deduplication"),
    "Tokens": ("tokens_not_letters", "vocabulary"),
    "Pretraining": ("predictable_loss",),
    "Base model": ("same_prompt", "recall_dose", "hallucination", "asked_by_prompt"),
    "Assistant": ("style_not_knowledge", "labelers"),
    "Hallucinations": ("confident_style", "interrogation", "search_helps", "weights_against_context"),
    "Tokens to think": ("fixed_compute", "tokens_to_think", "tool_against_arithmetic", "jagged_profile"),
    "Reinforcement": (
        "rl_selects",
        "rl_lengthens",
        "rl_amplifies",
        "rl_discovers",
        "sl_plateaus_rl_surpasses",
        "move_37",
    ),
    "Preferences": (
        "ranking_is_easier_than_writing",
        "reward_hacking",
        "rlhf_does_not_scale",
        "hackable_rewards",
    ),
    "Red team": (
        "jailbreak_by_encoding",
        "injection_by_hidden_text",
        "exfiltration",
        "poison_dose",
        "poison_pages",
        "poison_split",
        "poison_detection",
    ),
    "Images and sounds": ("reads_images", "hears_commands", "hidden_inputs"),
    "Origin": ("attribution",),
}
"""Subject -> its experiments of the lab, in the order of the talk."""
_MARKS = {"confirmed": "good", "partly": "half", "not at this scale": "bad"}


class Judged(msgspec.Struct, kw_only=True):
    """The judgement of a result."""

    verdict: str
    summary: str
    effect: dict[str, float]


class Claim(msgspec.Struct, kw_only=True):
    """What a page shows of the lab's NAME/result.json."""

    experiment: str
    claim: str
    source: str
    prediction: str
    method: str
    seeds: list[int]
    judgement: Judged
    cpu_seconds: list[float]
    ranges: dict[str, tuple[float, float]] = {}


class Shown(NamedTuple):
    """A claim and its chart."""

    claim: Claim
    figure: str


def read_claims(folder: Path) -> dict[str, Shown]:
    """Experiment -> its result and figure, of those that the lab's folder has. Raises BadInput for a damaged one, and
    MissingInput for a folder without any.
    """
    found = {}
    for path in sorted(folder.glob("*/result.json")):
        try:
            claim = msgspec.json.decode(path.read_bytes(), type=Claim)
        except msgspec.MsgspecError as error:
            raise BadInput(f"{path} is damaged ({error}); remove it, and run the experiment again") from None
        figure = path.parent / "figure.svg"
        found[path.parent.name] = Shown(claim, figure.read_text(encoding="utf-8") if figure.exists() else "")
    if not found:
        raise MissingInput(
            f"{folder} has no results of the lab; make some with: crawltalk lab NAME --out {folder}"
        )
    return found


def claims_of(subject: str, found: Mapping[str, Shown]) -> str:
    """The claims on a subject, each folded behind its verdict."""
    shown = [_claim(found[name]) for name in CLAIMS.get(subject, ()) if name in found]
    return f"<h3>Tested in the lab</h3>{''.join(shown)}" if shown else ""


def claims_page(found: Mapping[str, Shown]) -> str:
    """All claims of the lab as one file."""
    placed = {name for names in CLAIMS.values() for name in names}
    subjects = [*CLAIMS.items(), ("Further", tuple(name for name in found if name not in placed))]
    shown = [(subject, [name for name in names if name in found]) for subject, names in subjects]
    shown = [(subject, names) for subject, names in shown if names]
    verdicts = [found[name].claim.judgement.verdict for _, names in shown for name in names]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in _MARKS if verdict in verdicts)
    overview = table(
        ("claim", "verdict", "seeds", "CPU seconds"),
        [
            (
                one.claim.claim,
                one.claim.judgement.verdict,
                len(one.claim.seeds),
                round(sum(one.claim.cpu_seconds)),
            )
            for _, names in shown
            for one in (found[name] for name in names)
        ],
    )
    parts = "".join(
        f'<section id="{anchor(subject)}"><h2>{text(subject)}</h2>{"".join(_claim(found[name]) for name in names)}'
        "</section>"
        for subject, names in shown
    )
    return page(
        "crawltalk lab",
        "<main><header><h1>What is claimed, and what came out</h1>"
        f'<p class="lead">{len(verdicts)} claim{"s" * (len(verdicts) != 1)} about how language models learn, each with '
        f"a prediction that was written down before its experiment: {text(counts)}.</p></header>"
        f"<details><summary>All in a table</summary>{overview}</details>{parts}</main>",
    )


def _claim(shown: Shown) -> str:
    one = shown.claim
    about: Sequence[tuple[str, str]] = (
        ("who says so", one.source),
        ("predicted before", one.prediction),
        ("how", one.method),
        ("effect", "; ".join(_effect(one, name) for name in one.judgement.effect)),
        ("cost", f"{sum(one.cpu_seconds):,.0f} CPU seconds for {_seeds(len(one.seeds))}"),
        ("again", f"crawltalk lab {one.experiment}"),
    )
    mark = _MARKS.get(one.judgement.verdict, "half")
    return (
        f'<details class="claim"><summary><span class="verdict {mark}">{text(one.judgement.verdict)}</span> '
        f"{text(one.claim)}</summary><p>{text(one.judgement.summary)}</p><figure>{shown.figure}</figure>"
        f"{table(('', ''), about)}</details>"
    )


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


def _effect(one: Claim, name: str) -> str:
    """An effect, and what the seeds alone give."""
    value, seeds = one.judgement.effect[name], len(one.seeds)
    if name not in one.ranges or seeds < 2:
        return f"{name}: {value:.3g}"
    least, most = one.ranges[name]
    return f"{name}: {value:.3g} ({least:.3g} to {most:.3g} over {seeds} seeds)"
