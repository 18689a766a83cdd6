"""Every token costs the same, however hard it is to guess."""

import random
import statistics
import time
from collections.abc import Sequence

import torch

from crawltalk.evals.abilities import computation
from crawltalk.lab.chains import ALPHABET, facts, mean
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, verdict_of
from crawltalk.lab.figures import bar_chart
from crawltalk.lab.student import Example, Student

TOKENS, ROUNDS, BATCH = 96, 60, 32
AGAIN = "1+1=2;" * 20
PRETRAINING = 100
MOST_APART = 0.1


def run(trial: Trial) -> Figures:
    """CPU time of a pass over easy tokens and over hard ones, in turns; and how surprising each are."""
    student = Student(trial, ALPHABET)
    student.learn("pretraining", _texts, PRETRAINING, 16)
    rng = random.Random(trial.seed)
    easy = [student.encode(AGAIN)[:TOKENS] for _ in range(BATCH)]
    hard = [student.encode("".join(rng.choices(ALPHABET, k=TOKENS)))[:TOKENS] for _ in range(BATCH)]
    rows = {"easy": torch.tensor(easy), "hard": torch.tensor(hard)}
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    with torch.inference_mode():
        for number in range(ROUNDS):
            for name in sorted(rows, reverse=bool(number % 2)):
                began = time.process_time()
                student.model.logits(student.model.states(rows[name]))
                seconds[name].append(time.process_time() - began)
        surprise = {
            name: float(
                torch.nn.functional.cross_entropy(
                    student.model.logits(student.model.states(ids))[:, :-1].flatten(0, 1),
                    ids[:, 1:].flatten(),
                )
            )
            for name, ids in rows.items()
        }
    _, flops, _ = computation(student.model.shape)
    ratios = [hard / easy for easy, hard in zip(seconds["easy"], seconds["hard"], strict=True)]
    return {"ratio": statistics.median(ratios), "surprise": surprise, "flops": flops}


def _texts(rng: random.Random) -> Example:
    """One step again and again, or different ones."""
    return Example("", AGAIN) if rng.random() < 0.5 else facts(rng)


def rule(figures: Sequence[Figures]) -> Judgement:
    """The time does not follow the surprise."""
    clear = [
        abs(row["ratio"] - 1) <= MOST_APART and row["surprise"]["hard"] >= 2 * row["surprise"]["easy"]
        for row in figures
    ]
    ratio = mean([row["ratio"] for row in figures])
    easy, hard = (mean([row["surprise"][name] for row in figures]) for name in ("easy", "hard"))
    return Judgement(
        verdict=verdict_of(clear),
        effect={
            "time of hard tokens over easy ones": ratio,
            "surprise of hard over easy": hard / max(easy, 1e-9),
        },
        summary=(
            f"Tokens that surprise the model {hard / max(easy, 1e-9):.1f} times as much take {ratio:.2f} times the CPU "
            f"time: {figures[0]['flops']:,.0f} operations each, whatever they are."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """Surprise and time of hard tokens, as multiples of those of easy ones."""
    return bar_chart(
        {
            "surprise": [row["surprise"]["hard"] / max(row["surprise"]["easy"], 1e-9) for row in figures],
            "CPU time": [row["ratio"] for row in figures],
        },
        "hard tokens over easy ones",
    )


EXPERIMENT = Experiment(
    name="fixed_compute",
    claim="A model spends the same computation on each token, however hard it is.",
    source="Karpathy, Deep Dive into LLMs (2025), on why models need tokens to think",
    prediction=(
        f"In each seed the median CPU time of a pass over hard tokens is within {MOST_APART:.0%} of that over easy "
        "ones, while they surprise the model at least twice as much. Else: partly, or not at this scale if no seed "
        "shows it."
    ),
    method=(
        "A Transformer of 0.1 M parameters that has learned texts of arithmetic, among them one step again and again, "
        f"reads that one, and random characters: {BATCH} rows of {TOKENS} tokens each, {ROUNDS} passes in turns."
    ),
    run=run,
    judge=rule,
    figure=figure,
)
