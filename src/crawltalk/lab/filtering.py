"""Filtered pages against raw ones at equal compute."""

from collections.abc import Sequence

from crawltalk.lab.corpora import Corpora
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, verdict_of
from crawltalk.lab.figures import bar_chart
from crawltalk.lab.journeys import FOLDER, journey

TOKENS = 400_000
LEAST_BETTER = 0.05
ARMS = {
    "filtered": "filtered",
    "language": "other languages left in",
    "quality": "low quality left in",
    "raw": "raw",
}


def run(trial: Trial) -> Figures:
    """Bits per byte of held-out pages after a training on what the filters keep, and on what they would drop, too."""
    corpora = Corpora(journey(trial, until="tokenizer"))
    kept, dropped = corpora.kept, corpora.dropped
    texts = {
        "filtered": kept,
        "language": [*kept, *dropped["language"]],
        "quality": [*kept, *dropped["quality"]],
        "raw": [*kept, *(text for texts in dropped.values() for text in texts)],
    }
    return {name: corpora.loss(trial, name, texts[name], TOKENS) for name in ARMS}


def rule(figures: Sequence[Figures]) -> Judgement:
    """Raw pages cost loss."""
    worse = {
        name: [row[name] / row["filtered"] - 1 for row in figures] for name in ARMS if name != "filtered"
    }
    means = {name: sum(values) / len(values) for name, values in worse.items()}
    clear = [value >= LEAST_BETTER for value in worse["raw"]]
    return Judgement(
        verdict=verdict_of(clear),
        effect={f"{ARMS[name]}: more bits per byte": value for name, value in means.items()},
        summary=(
            f"On equally many tokens a model trained on raw pages needs {means['raw']:.0%} more bits for each byte of "
            f"held-out pages than one trained on filtered ones; {means['language']:.0%} if only other languages are "
            f"left in, {means['quality']:.0%} if only pages of low quality are."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """Bits per byte of each arm."""
    return bar_chart({about: [row[name] for row in figures] for name, about in ARMS.items()}, "bits per byte")


EXPERIMENT = Experiment(
    name="filtering",
    claim="Filtering matters: at equal compute a model learns more from filtered pages than from raw ones.",
    source="Karpathy, Deep Dive into LLMs (2025), on FineWeb (Penedo et al. 2024, section 3)",
    prediction=(
        f"In each seed a model trained on raw pages needs {LEAST_BETTER:.0%} more bits per byte at least of held-out "
        "pages than one trained on as many tokens of filtered ones. Else: partly, or not at this scale if no seed "
        "shows it."
    ),
    method=(
        f"Models of 0.6 M parameters, {TOKENS:,} tokens each, from the pages of the embedded crawl: those that the "
        "data stage keeps; these and the ones dropped for their language; these and the ones dropped for their "
        "quality; all with a text. One tokenizer. Held-out pages are English, kept, and have no near-duplicate: so "
        "this says what filters do for text like them."
    ),
    run=run,
    judge=rule,
    figure=figure,
    shared=FOLDER,
)
