"""Whether a prompt alone makes an assistant of a base model."""

from collections.abc import Sequence

from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, means_of, verdict_of
from crawltalk.lab.figures import bar_chart
from crawltalk.lab.journeys import FOLDER, MODEL, journey, results

WAYS = {"zero_shot": "a title and a colon", "few_shot": "after three examples", "by_prompt": "as a dialogue"}
LEAST = 0.3


def run(trial: Trial) -> Figures:
    """The share of descriptions that the base model gives in each way, and that the assistant gives."""
    scores = results(journey(trial), "scores.json")
    return {way: scores[way]["score"] for way in WAYS} | {"assistant": scores["flagship"]["score"]}


def rule(figures: Sequence[Figures]) -> Judgement:
    """Examples or a dialogue in the prompt must work as well as the plain prompt, and well enough."""
    clear = [max(row["few_shot"], row["by_prompt"]) >= max(LEAST, row["zero_shot"]) for row in figures]
    means = means_of(figures)
    return Judgement(
        verdict=verdict_of(clear),
        effect=means,
        summary=(
            f"Asked by a title and a colon the base model gives {means['zero_shot']:.0%} of the descriptions that it "
            f"has read, after three examples {means['few_shot']:.0%}, in a transcript of an assistant "
            f"{means['by_prompt']:.0%}; fine-tuned it gives {means['assistant']:.0%}. Pages like these prompts do not "
            "occur among what it read, and a model of this size does not learn in its context what was not there."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """The share of descriptions in each way."""
    names = WAYS | {"assistant": "fine-tuned"}
    return bar_chart({about: [row[way] for row in figures] for way, about in names.items()}, "share right")


EXPERIMENT = Experiment(
    name="asked_by_prompt",
    claim="A prompt alone makes an assistant of a base model: examples, or the transcript of a dialogue.",
    source="Karpathy, Deep Dive into LLMs (2025), on Llama 3 405B base; Brown et al. 2020",
    prediction=(
        f"In each seed one of the two prompts gets {LEAST} at least of the descriptions, and no fewer than a title and "
        "a colon alone. Else: partly, or not at this scale if no seed shows it."
    ),
    method=MODEL
    + "Descriptions of the pages that it read most often, greedily. Control: the fine-tuned model.",
    run=run,
    judge=rule,
    figure=figure,
    shared=FOLDER,
)
