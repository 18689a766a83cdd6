"""An assistant is a statistical imitation of those who wrote its conversations."""

import random
from collections.abc import Sequence

from crawltalk.core.charts import panels, svg
from crawltalk.lab.chains import ALPHABET, asked, draw, facts, is_worked, mean, results, scores, terse, worked
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, verdict_of
from crawltalk.lab.student import Example, Student

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Of the demonstrations, those by the labeler who writes every step."""
STEPS = 1
"""Of a chain: so easy that both styles are right, so that only the style differs."""
PRETRAINING, FINE_TUNING = 150, 400
PROBLEMS = 600
MOST_OFF, MOST_APART = 0.1, 0.05


def run(trial: Trial) -> Figures:
    """Style and accuracy of assistants that learned from the two labelers in different shares."""
    student = Student(trial, ALPHABET)
    student.learn("pretraining", facts, PRETRAINING, 16, learned=results)
    figures: Figures = {}
    for share in SHARES:
        taught = student.copy()

        def demonstration(rng: random.Random, share=share) -> Example:
            chain = draw(rng, STEPS, "train")
            by_second = rng.random() < share
            return Example(
                asked(chain).prompt, worked(chain, rng, 0.0) if by_second else terse(chain, rng, 0.0)
            )

        taught.learn(f"share-{share:g}", demonstration, FINE_TUNING)
        rng = random.Random("labelers")
        problems = [asked(draw(rng, STEPS, "train")) for _ in range(PROBLEMS)]
        replies = taught.answer([problem.prompt for problem in problems], 1.0)
        figures[f"{share:g}"] = {
            "worked": mean([is_worked(reply.text) for reply in replies]),
            "accuracy": mean(scores(problems, replies)),
        }
    return figures


def rule(figures: Sequence[Figures]) -> Judgement:
    """Styles come in the shares of the demonstrations, and the answers stay as right."""
    off = [max(abs(row[f"{share:g}"]["worked"] - share) for share in SHARES) for row in figures]
    accuracies = [[row[f"{share:g}"]["accuracy"] for share in SHARES] for row in figures]
    apart = [max(row) - min(row) for row in accuracies]
    clear = [a <= MOST_OFF and b <= MOST_APART for a, b in zip(off, apart, strict=True)]
    return Judgement(
        verdict=verdict_of(clear),
        effect={
            "largest difference of a share": mean(off),
            "largest difference of the accuracy": mean(apart),
            "accuracy": mean([value for row in accuracies for value in row]),
        },
        summary=(
            "Sampled replies come in the style of each labeler about as often as its demonstrations did (largest "
            f"difference {mean(off):.2f}), and are right as often in every mixture (largest difference "
            f"{mean(apart):.2f}): the style is the labelers', the knowledge that of the pretraining."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """The share of a style among the replies against that among the demonstrations."""
    chart, (axes,) = panels([("share of the second labeler's demonstrations", "share of its style")])
    axes.plot([0, 1], [0, 1], color="C7", linewidth=0.8, linestyle="--", label="as shown")
    for number, row in enumerate(figures):
        axes.plot(
            SHARES,
            [row[f"{share:g}"]["worked"] for share in SHARES],
            "o-",
            color="C0",
            markersize=4,
            linewidth=1.2,
            label=None if number else "sampled replies",
        )
    return svg(chart)


EXPERIMENT = Experiment(
    name="labelers",
    claim="What one talks to is a statistical simulation of the labelers: their styles, in the shares of their work.",
    source="Karpathy, Deep Dive into LLMs (2025), on InstructGPT's labelers (Ouyang et al. 2022)",
    prediction=(
        f"In each seed the share of each labeler's style among sampled replies is within {MOST_OFF} of its share of "
        f"the demonstrations, for six shares from 0 to 1, and the accuracy differs by {MOST_APART} at most between "
        "them. Else: partly, or not at this scale if no seed shows it."
    ),
    method=(
        "A Transformer of 0.1 M parameters learns the table of single steps. From there it is fine-tuned six times on "
        "answers of two labelers, one who writes the digit and one who writes the step, in different shares; "
        f"{PROBLEMS} replies at temperature 1."
    ),
    run=run,
    judge=rule,
    figure=figure,
)
