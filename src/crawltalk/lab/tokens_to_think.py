"""An answer at once against one that is written step by step, by the same model."""

import random
from collections.abc import Sequence

from crawltalk.core.types import Problem
from crawltalk.lab.chains import ALPHABET, asked, draw, facts, mean, results, worked
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, verdict_of
from crawltalk.lab.figures import line_chart
from crawltalk.lab.student import Example, Student
from crawltalk.tasks.chains import Chain

LENGTHS = (1, 2, 3, 4, 6)
"""Steps of the chains that are asked about; all are trained on."""
LONGEST = LENGTHS[-1]
FILLER = "."
PRETRAINING, FINE_TUNING = 150, 400
"""Steps, of 16 and of 64 examples."""
PROBLEMS = 200
"""Held out, of each length."""
LEAST_WORKED, MOST_DIRECT = 0.9, 0.5
ARMS = {
    "worked": "step by step",
    "direct": "at once",
    "longer": "at once, more training",
    "filler": "after dots",
}


def run(trial: Trial) -> Figures:
    """Accuracy by the length of the chain: the same pretrained student, taught to answer in each way."""
    student = Student(trial, ALPHABET + FILLER)
    student.learn("pretraining", facts, PRETRAINING, 16, learned=results)

    def at_once(chain: Chain, _: random.Random) -> str:
        return str(chain.values(10)[-1])

    def written(chain: Chain, rng: random.Random) -> str:
        return worked(chain, rng, 0.0)

    def dotted(chain: Chain, rng: random.Random) -> str:
        steps = written(chain, rng)
        return FILLER * (len(steps) - 1) + steps[-1]

    ways = {"worked": (written, 1), "direct": (at_once, 1), "longer": (at_once, 3), "filler": (dotted, 1)}
    figures: Figures = {}
    for name, (write, times) in ways.items():
        taught = student.copy()

        def demonstration(rng: random.Random, write=write) -> Example:
            chain = draw(rng, rng.choice(LENGTHS), "train")
            return Example(asked(chain).prompt, write(chain, rng))

        taught.learn(name, demonstration, times * FINE_TUNING)
        figures[name] = {str(steps): _accuracy(taught, steps) for steps in LENGTHS}
    return figures


def _accuracy(student: Student, steps: int) -> float:
    rng = random.Random(f"tokens to think {steps}")
    problems: list[Problem] = [asked(draw(rng, steps, "test")) for _ in range(PROBLEMS)]
    replies = student.answer([problem.prompt for problem in problems])
    return mean([reply.text[-1:] == problem.answer for reply, problem in zip(replies, problems, strict=True)])


def rule(figures: Sequence[Figures]) -> Judgement:
    """Worked answers to the longest chains are right, and none of the other ways gets near."""
    last = str(LONGEST)
    clear = [
        row["worked"][last] >= LEAST_WORKED
        and max(row[name][last] for name in ("direct", "longer", "filler")) <= MOST_DIRECT
        for row in figures
    ]
    means = {name: mean([row[name][last] for row in figures]) for name in ARMS}
    return Judgement(
        verdict=verdict_of(clear),
        effect={about: means[name] for name, about in ARMS.items()},
        summary=(
            f"Chains of {LONGEST} steps are solved step by step in {means['worked']:.0%} of the cases and at once in "
            f"{means['direct']:.0%}; with three times the training {means['longer']:.0%}. As many dots instead of "
            f"steps give {means['filler']:.0%}: what is written counts, not the number of passes."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """Accuracy against the steps of a chain, in each way."""
    lines = {
        about: [[row[name][str(steps)] for steps in LENGTHS] for row in figures]
        for name, about in ARMS.items()
    }
    return line_chart(lines, LENGTHS, "steps of a chain", "share right")


EXPERIMENT = Experiment(
    name="tokens_to_think",
    claim="A model needs tokens to think: what it solves when it writes the steps down it does not solve at once.",
    source="Karpathy, Deep Dive into LLMs (2025); Wei et al. 2022, chain of thought; Pfau et al. 2024, filler tokens",
    prediction=(
        f"In each seed chains of {LONGEST} steps that were never trained on are right in {LEAST_WORKED} at least of "
        f"the cases step by step, and in {MOST_DIRECT} at most at once, at once after three times the training, and "
        "after as many dots as the steps have characters. Else: partly, or not at this scale if no seed shows it."
    ),
    method=(
        "A Transformer of 0.1 M parameters learns the table of single steps, then answers to chains of 1 to "
        f"{LONGEST} steps, each way from the same weights in {FINE_TUNING} batches of 64. Greedy replies to "
        f"{PROBLEMS} held-out chains of each length."
    ),
    run=run,
    judge=rule,
    figure=figure,
)
