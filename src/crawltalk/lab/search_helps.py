"""Search as the second mitigation: the page before the question."""

from collections.abc import Sequence

from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, means_of, verdict_of
from crawltalk.lab.figures import bar_chart
from crawltalk.lab.journeys import FOLDER, MODEL, journey, results

LEAST_SEARCHED, LEAST_ABOVE_CHANCE = 0.9, 0.05


def run(trial: Trial) -> Figures:
    """Pages that were never read: from memory, with a sentence of the page that search finds, in words of its own."""
    found = results(journey(trial), "factuality.json")
    never = next(group for group in found["groups"] if group["seen"] == "never")
    return {
        "memory": never["assistant"]["correct"],
        "quoted": found["searched"]["quoted"]["correct"],
        "free": found["searched"]["free"]["correct"],
        "chance": found["chance"],
    }


def rule(figures: Sequence[Figures]) -> Judgement:
    """A sentence of the page that it chooses, beyond a sentence drawn at random."""
    clear = [
        row["quoted"] >= LEAST_SEARCHED
        and row["quoted"] - max(row["chance"], row["memory"]) >= LEAST_ABOVE_CHANCE
        for row in figures
    ]
    free = all(row["free"] >= 0.5 for row in figures)
    means = means_of(figures)
    return Judgement(
        verdict=verdict_of(clear, free),
        effect=means,
        summary=(
            f"About pages that it never read the assistant is right from memory in {means['memory']:.0%} of the cases, "
            f"with the likeliest sentence of the page that search finds in {means['quoted']:.0%} (a random sentence: "
            f"{means['chance']:.0%}), and in words of its own in {means['free']:.0%}."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """Right answers in each way."""
    names = {
        "memory": "from memory",
        "chance": "a random sentence of the page",
        "quoted": "the sentence that it chooses",
        "free": "in words of its own",
    }
    return bar_chart({about: [row[way] for row in figures] for way, about in names.items()}, "share right")


EXPERIMENT = Experiment(
    name="search_helps",
    claim="A model that may search answers what is not in its weights: the page stands in its context.",
    source="Karpathy, Deep Dive into LLMs (2025), on the second mitigation of hallucinations",
    prediction=(
        f"In each seed the assistant is right about {LEAST_SEARCHED} at least of the pages that no stage has read, "
        f"{LEAST_ABOVE_CHANCE} above a sentence of the page drawn at random. It is confirmed if it also answers half "
        "of them in words of its own; else: partly, or not at this scale if no seed shows the first."
    ),
    method=(
        MODEL
        + "Search is BM25 over the passages of all documents; the assistant scores the sentences of the passage "
        "and quotes the likeliest, or writes freely with the passage before the question. Controls: no passage; a "
        "random sentence of it."
    ),
    run=run,
    judge=rule,
    figure=figure,
    shared=FOLDER,
)
