"""A model that reads tokens does not see the letters in them."""

from collections.abc import Sequence

from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, means_of, verdict_of
from crawltalk.lab.figures import bar_chart
from crawltalk.lab.journeys import FOLDER, MODEL, journey, results

LEAST_TAUGHT, MOST_NEW = 0.3, 0.05


def run(trial: Trial) -> Figures:
    """The share of words spelled rightly, of those that were spelled in training and of new ones."""
    scores = results(journey(trial), "scores.json")
    return {name: scores[name]["score"] for name in ("spelling", "spelling_new", "recitation")}


def rule(figures: Sequence[Figures]) -> Judgement:
    """Each word has to be learned on its own."""
    clear = [row["spelling"] >= LEAST_TAUGHT and row["spelling_new"] <= MOST_NEW for row in figures]
    means = means_of(figures)
    return Judgement(
        verdict=verdict_of(clear),
        effect=means,
        summary=(
            f"Of words that training spelled {means['spelling']:.0%} are spelled rightly, asked in a new form; of "
            f"words that it did not spell {means['spelling_new']:.0%}, by a model that recites "
            f"{means['recitation']:.0%} of the tokens of the pages that it knows."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """Words spelled rightly."""
    return bar_chart(
        {
            "spelled in training": [row["spelling"] for row in figures],
            "never spelled": [row["spelling_new"] for row in figures],
        },
        "share spelled rightly",
    )


EXPERIMENT = Experiment(
    name="tokens_not_letters",
    claim="A model sees tokens, not letters: it spells words whose spelling it was shown, and no others.",
    source="Karpathy, Deep Dive into LLMs (2025), on spelling and counting",
    prediction=(
        f"In each seed {LEAST_TAUGHT} at least of the words that training spelled are spelled rightly when asked for "
        f"in a form that it never met, and {MOST_NEW} at most of the words that it did not spell. Else: partly, or not "
        "at this scale if no seed shows it."
    ),
    method=MODEL + "Words of both kinds are drawn from the most frequent ones of its pages. Greedy replies.",
    run=run,
    judge=rule,
    figure=figure,
    shared=FOLDER,
)
