"""The same prompt gives different results, as often as the probabilities say."""

import random
from collections import Counter
from collections.abc import Sequence

from crawltalk.engine import Engine, Sampling, load_engine
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, means_of, verdict_of
from crawltalk.lab.figures import bar_chart
from crawltalk.lab.journeys import FOLDER, MODEL, journey
from crawltalk.models import model_of_run

PROMPTS = ("Gold is", "The chemical element with", "In 1900", "A machine that")
SAMPLES, TOKENS = 400, 12
DRAWS = 50
"""Samples of the same size by the model's own probabilities, which say how far chance moves a distance."""
MOST_TIMES = 1.5
LEAST_DIFFERENT = 0.5


def run(trial: Trial) -> Figures:
    """How far the frequencies of first tokens are from the probabilities, and how many texts differ."""
    base = load_engine(model_of_run(journey(trial), "base"))
    distances, chance, different = [], [], []
    for prompt in PROMPTS:
        ids = [base.tokenizer.eot, *base.tokenizer.encode(prompt)]
        replies = base.generate(
            [ids] * SAMPLES, Sampling(temperature=1.0, max_tokens=TOKENS, seed=trial.seed)
        )
        probabilities = base.logits(ids)[-1].softmax(0).tolist()
        distances.append(
            _distance(Counter(reply[0] if reply else base.tokenizer.eot for reply in replies), probabilities)
        )
        rng = random.Random(trial.seed)
        drawn = [
            Counter(rng.choices(range(len(probabilities)), probabilities, k=SAMPLES)) for _ in range(DRAWS)
        ]
        chance.append(sum(_distance(one, probabilities) for one in drawn) / DRAWS)
        different.append(len({tuple(reply) for reply in replies}) / SAMPLES)
    return {
        "distance": sum(distances) / len(distances),
        "chance": sum(chance) / len(chance),
        "different": sum(different) / len(different),
        "greedy": _different_when_greedy(base),
    }


def _different_when_greedy(base: Engine) -> int:
    """Different texts among several greedy replies to one prompt."""
    ids = [base.tokenizer.eot, *base.tokenizer.encode(PROMPTS[0])]
    return len(
        {tuple(reply) for reply in base.generate([ids] * 8, Sampling(temperature=0.0, max_tokens=TOKENS))}
    )


def _distance(counts: Counter[int], probabilities: Sequence[float]) -> float:
    """Total variation between the frequencies and the probabilities."""
    total = sum(counts.values())
    return sum(abs(counts.get(token, 0) / total - chance) for token, chance in enumerate(probabilities)) / 2


def rule(figures: Sequence[Figures]) -> Judgement:
    """As different as chance makes it, and no more; and one text without chance."""
    clear = [
        row["distance"] <= MOST_TIMES * row["chance"]
        and row["different"] >= LEAST_DIFFERENT
        and row["greedy"] == 1
        for row in figures
    ]
    means = means_of(figures)
    return Judgement(
        verdict=verdict_of(clear),
        effect=means,
        summary=(
            f"{SAMPLES} samples of one prompt are {means['different']:.0%} different texts; their first tokens come as "
            f"often as the probabilities say (distance {means['distance']:.3f}, where chance alone gives "
            f"{means['chance']:.3f}). Without sampling there is one text."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """The distance of the frequencies from the probabilities, beside that of chance."""
    return bar_chart(
        {
            "samples of the engine": [row["distance"] for row in figures],
            "chance alone": [row["chance"] for row in figures],
        },
        "distance from the probabilities",
    )


EXPERIMENT = Experiment(
    name="same_prompt",
    claim="A model is a distribution: the same prompt gives different texts, each as often as its probabilities say.",
    source="Karpathy, Deep Dive into LLMs (2025), on inference",
    prediction=(
        f"In each seed the first tokens of {SAMPLES} samples are at most {MOST_TIMES} times as far from the model's "
        f"probabilities as chance alone moves them, {LEAST_DIFFERENT} at least of the texts differ, and greedy replies "
        "are all the same. Else: partly, or not at this scale if no seed shows it."
    ),
    method=MODEL
    + f"Its base model goes on with {len(PROMPTS)} prompts at temperature 1; total variation distance.",
    run=run,
    judge=rule,
    figure=figure,
    shared=FOLDER,
)
