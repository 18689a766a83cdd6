"""Asking the model what it knows, and teaching it to decline the rest."""

from collections.abc import Sequence

from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, verdict_of
from crawltalk.lab.figures import bar_chart
from crawltalk.lab.journeys import FOLDER, MODEL, asked_about, journey, results

MOST_INVENTED, LEAST_KEPT, LEAST_WITHOUT = 0.1, 0.9, 0.5
NOTHING = {"score": 0.0}
"""Of a base model that knew nothing, nothing is kept."""


def run(trial: Trial) -> Figures:
    """What the assistant makes up and still knows; and one that was taught the same answers without refusals."""
    made = journey(trial)
    confident = journey(
        trial, "confident", {"factuality.samples": "0", "sft.tasks.refusal": "0"}, until="sft", lender=made
    )
    scores = results(made, "scores.json")
    return {
        "interrogated": {
            "invented": scores["invented"]["score"],
            "known_kept": scores.get("known_kept", NOTHING)["score"],
        },
        "confident": asked_about(confident, "never", made),
    }


def rule(figures: Sequence[Figures]) -> Judgement:
    """The interrogated one makes little up and keeps what it knew; the other one makes things up."""
    invented = [row["interrogated"]["invented"] for row in figures]
    kept = [row["interrogated"]["known_kept"] for row in figures]
    without = [row["confident"]["incorrect"] for row in figures]
    clear = [
        a <= MOST_INVENTED and b >= LEAST_KEPT and c >= LEAST_WITHOUT
        for a, b, c in zip(invented, kept, without, strict=True)
    ]
    means = {
        "made up": sum(invented) / len(figures),
        "kept": sum(kept) / len(figures),
        "made up without": sum(without) / len(figures),
    }
    return Judgement(
        verdict=verdict_of(clear),
        effect=means,
        summary=(
            f"Asked what it knows and taught to decline the rest, the assistant makes up {means['made up']:.0%} of its "
            f"answers about pages that it never read and keeps {means['kept']:.0%} of what it knew. Taught answers "
            f"only, the same base model makes up {means['made up without']:.0%}, in the tone of the right ones."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """What is made up about pages that were never read."""
    return bar_chart(
        {
            "taught answers only": [row["confident"]["incorrect"] for row in figures],
            "asked first, taught to decline": [row["interrogated"]["invented"] for row in figures],
        },
        "share of answers made up",
    )


EXPERIMENT = Experiment(
    name="interrogation",
    claim="A model that is taught confident answers makes them up; asked what it knows first, it learns to decline.",
    source="Karpathy, Deep Dive into LLMs (2025), on Llama 3 (Llama Team 2024, section 4.3.6)",
    prediction=(
        f"In each seed the interrogated assistant makes up {MOST_INVENTED} at most of its answers about pages that no "
        f"stage has read and keeps {LEAST_KEPT} of what the base model knew, while the one that was taught answers "
        f"only makes up {LEAST_WITHOUT} at least. Else: partly, or not at this scale if no seed shows it."
    ),
    method=(
        MODEL
        + "Fine-tuned twice from the same base model: with what it was asked (eight answers a question; wrong "
        "each time becomes a refusal), and on the same conversations without any refusal. The forms of the questions "
        "of the test were never trained on."
    ),
    run=run,
    judge=rule,
    figure=figure,
    shared=FOLDER,
)
