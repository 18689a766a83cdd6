"""Near-verbatim recall grows with the number of times that a page was seen."""

from collections.abc import Sequence
from statistics import mean

from crawltalk.core.charts import panels, svg
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, verdict_of
from crawltalk.lab.journeys import FOLDER, MODEL, journey, results

LEAST_KNOWN, MOST_UNKNOWN = 0.8, 0.1
RARELY = 5.0
"""Times that a page is seen, at most, to be one of those that are hardly known."""


def run(trial: Trial) -> Figures:
    """Recall of the base model, by the number of times that pages were seen."""
    rows = results(journey(trial), "recall.jsonl")
    return {name: [row[name] for row in rows] for name in ("times", "pages", "share", "longest")}


def rule(figures: Sequence[Figures]) -> Judgement:
    """Known by heart if seen most often, and hardly at all if seen a few times; unseen pages are the control."""
    most = [row["share"][-1] for row in figures]
    rare = [max(s for s, t in zip(row["share"], row["times"], strict=True) if t <= RARELY) for row in figures]
    rises = [row["share"] == sorted(row["share"]) or row["share"][-1] == max(row["share"]) for row in figures]
    clear = [a >= LEAST_KNOWN and b <= MOST_UNKNOWN and c for a, b, c in zip(most, rare, rises, strict=True)]
    effect = {"seen most often": mean(most), "seen five times at most": mean(rare)}
    return Judgement(
        verdict=verdict_of(clear),
        effect=effect,
        summary=(
            f"Of pages seen {figures[0]['times'][-1]:g} times the model recites {mean(most):.0%} of the tokens that "
            f"follow their beginning, of pages seen {RARELY:g} times at most {mean(rare):.0%}; the rise lies between."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """Recall against the number of times, a line for each seed."""
    chart, (axes,) = panels([("times that a page was seen in training", "share of tokens recalled")])
    for row in figures:
        axes.plot(row["times"], row["share"], color="C0", marker="o", markersize=3, linewidth=1.2)
    return svg(chart)


EXPERIMENT = Experiment(
    name="recall_dose",
    claim="Pages that training repeats are recited nearly word for word; pages that it shows a few times are not.",
    source="Karpathy, Deep Dive into LLMs (2025), on Llama 3 and Wikipedia; Carlini et al. 2023, section 4",
    prediction=(
        f"In each seed the base model recites {LEAST_KNOWN} at least of the tokens of the pages seen most often, and "
        f"{MOST_UNKNOWN} at most of those seen {RARELY:g} times or less, unseen ones among them. Else: partly, or not "
        "at this scale if no seed shows it."
    ),
    method=(
        MODEL
        + "Pages are repeated 1, 2, 4, 8 and 16 times a pass. The model gets the first 24 tokens of a page; "
        "counted are the tokens of the next 96 that greedy decoding gets right. Control: pages that it never saw."
    ),
    run=run,
    judge=rule,
    figure=figure,
    shared=FOLDER,
)
