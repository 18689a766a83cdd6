"""Pages that a crawl has many times against pages once."""

from collections.abc import Sequence

from crawltalk.lab.corpora import Corpora
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, verdict_of
from crawltalk.lab.figures import bar_chart
from crawltalk.lab.journeys import FOLDER, journey

TOKENS = 400_000
LEAST_BETTER = 0.01
COPIES = 30
"""Of each duplicate, in the crawl that a scraper fills with copies."""
ARMS = {"once": "each page once", "crawled": "as crawled", "copied": "many copies of some pages"}


def run(trial: Trial) -> Figures:
    """Bits per byte of held-out pages after a training on pages once, with their near-duplicates, and with many."""
    corpora = Corpora(journey(trial, until="tokenizer"))
    duplicates = corpora.dropped["duplicate"]
    texts = {
        "once": corpora.kept,
        "crawled": [*corpora.kept, *duplicates],
        "copied": [*corpora.kept, *duplicates * COPIES],
    }
    figures: Figures = {name: corpora.loss(trial, name, texts[name], TOKENS) for name in ARMS}
    return figures | {"share": len(duplicates) / (len(corpora.kept) + len(duplicates))}


def rule(figures: Sequence[Figures]) -> Judgement:
    """Copies cost loss: as many as a crawl has, and many more."""
    worse = {name: [row[name] / row["once"] - 1 for row in figures] for name in ("crawled", "copied")}
    means = {name: sum(values) / len(values) for name, values in worse.items()}
    many = [value >= LEAST_BETTER for value in worse["copied"]]
    few = [value >= LEAST_BETTER for value in worse["crawled"]]
    return Judgement(
        verdict=verdict_of(many, all(few)),
        effect={f"{ARMS[name]}: more bits per byte": value for name, value in means.items()},
        summary=(
            f"With the near-duplicates that the crawl has ({figures[0]['share']:.0%} of its pages) a model needs "
            f"{means['crawled']:+.1%} bits per byte of held-out pages on equally many tokens; with {COPIES} times as "
            f"many {means['copied']:+.1%}."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """Bits per byte of each arm."""
    return bar_chart({about: [row[name] for row in figures] for name, about in ARMS.items()}, "bits per byte")


EXPERIMENT = Experiment(
    name="deduplication",
    claim="Deduplication matters: at equal compute a model learns more from pages once than from pages many times.",
    source="Karpathy, Deep Dive into LLMs (2025), on FineWeb; Lee et al. 2022",
    prediction=(
        f"In each seed the near-duplicates of the crawl cost {LEAST_BETTER:.0%} at least of the bits per byte of "
        f"held-out pages, and {COPIES} times as many do. Partly, if some seed shows it for the many; else not at "
        "this scale."
    ),
    method=(
        f"Models of 0.6 M parameters, {TOKENS:,} tokens each: the kept pages of the embedded crawl; with the pages "
        f"that were dropped as near-duplicates; with {COPIES} copies of each of these. Held-out pages have no "
        "duplicate."
    ),
    run=run,
    judge=rule,
    figure=figure,
    shared=FOLDER,
)
