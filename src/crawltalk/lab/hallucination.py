"""A base model past its cutoff makes things up in the tone of what it knows."""

from collections.abc import Sequence

from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, verdict_of
from crawltalk.lab.figures import bar_chart
from crawltalk.lab.journeys import FOLDER, MODEL, journey, results

LEAST_INVENTED, LEAST_KNOWN = 0.95, 0.4


def run(trial: Trial) -> Figures:
    """Shares of the base model's answers that are right, declined and made up, by how often the page was read."""
    made = journey(trial)
    groups = {group["seen"]: group["base"] for group in results(made, "factuality.json")["groups"]}
    recalled = results(made, "recall.jsonl")
    return {
        "groups": groups,
        "confidence": {"unseen": recalled[0]["confidence"], "known": recalled[-1]["confidence"]},
    }


def rule(figures: Sequence[Figures]) -> Judgement:
    """It never declines, and what it says of unseen pages is wrong."""
    invented = [row["groups"]["never"]["incorrect"] for row in figures]
    declined = [max(group["declined"] for group in row["groups"].values()) for row in figures]
    known = [row["groups"]["often"]["correct"] for row in figures]
    clear = [
        a >= LEAST_INVENTED and b == 0.0 and c >= LEAST_KNOWN
        for a, b, c in zip(invented, declined, known, strict=True)
    ]
    unseen = sum(row["confidence"]["unseen"] for row in figures) / len(figures)
    wrong = sum(invented) / len(figures)
    return Judgement(
        verdict=verdict_of(clear),
        effect={
            "made up": wrong,
            "declined": sum(declined) / len(figures),
            "known": sum(known) / len(figures),
        },
        summary=(
            f"About pages that it never read the base model makes up {wrong:.0%} of its answers and declines none; the "
            f"tokens of what it makes up have a mean probability of {unseen:.2f}, where uniform guessing would have "
            "0.0002."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """What is made up, by how often a page was read."""
    names = {"often": "read often", "rarely": "read rarely", "never": "never read"}
    return bar_chart(
        {about: [row["groups"][seen]["incorrect"] for row in figures] for seen, about in names.items()},
        "share of answers that are wrong",
    )


EXPERIMENT = Experiment(
    name="hallucination",
    claim="Past its cutoff a base model does not stop: it makes things up, in the tone of what it knows.",
    source="Karpathy, Deep Dive into LLMs (2025), on Llama 3 and the election of 2024",
    prediction=(
        f"In each seed {LEAST_INVENTED} at least of the base model's answers about pages that no stage has read are "
        f"wrong, none of its answers declines, and {LEAST_KNOWN} at least of those about the pages read most often are "
        "right. Else: partly, or not at this scale if no seed shows it."
    ),
    method=(
        MODEL
        + "It gets the title of a page as its first line and goes on, eight times each at temperature 0.7; "
        "judged as correct, declined or incorrect (SimpleQA's way). Control: the pages that it read most often."
    ),
    run=run,
    judge=rule,
    figure=figure,
    shared=FOLDER,
)
