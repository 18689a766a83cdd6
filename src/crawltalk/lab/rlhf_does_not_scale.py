"""A reward that is verified can be optimised for as long as one likes; one that was learned from comparisons cannot.

Both are had for one task: jokes about a pelican (`lab/jokes.py`), whose hidden judge is the verifier here, and of which
people only say which of two they prefer. Policy, optimiser and length are the same.
"""

import math
import random
from collections.abc import Mapping, Sequence

import numpy as np

from crawltalk.core.charts import panels, svg
from crawltalk.core.types import Problem
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, verdict_of
from crawltalk.lab.jokes import LABEL_TEMPERATURE, compare, conversations, gold, label_noise
from crawltalk.lab.joking import Teller, fitting, judge_of, liking, optimise, pairs_among, writer
from crawltalk.posttraining.reward import measure
from crawltalk.rewards.verdict import Judge, Verdict, correct, wrong

DEMONSTRATIONS, POOL, TESTED = 1000, 600, 600
"""Jokes to imitate; jokes of the writer about each place; pairs that reward models are measured on."""
COMPARISONS = (600, 2400)
"""That a reward model learns; the first ones are among the second."""
STEPS, EVERY, LAST = 96, 6, 3
"""Of a reinforcement: four times as many as those to the peak of a learned reward; between two looks at it; looks whose
mean is the end.
"""
VERIFIED, NOISY = "verified", "verified, noisy"
LEARNED = [f"{count:,} comparisons" for count in COMPARISONS]
STAYS, FALLS, APART = 0.9, 0.5, 0.5
"""Share of its peak at which a reinforcement ends that scales, or that does not; gold between them."""


def run(trial: Trial) -> Figures:
    """One seed: a writer, and four reinforcements of it that differ in the reward alone."""
    rng = random.Random(f"scaling {trial.seed}")
    base = writer(trial, "writer", conversations(DEMONSTRATIONS, rng))
    told = Teller(base).jokes(base, POOL, trial.seed)
    pairs, fresh = (pairs_among(told, count, rng) for count in (COMPARISONS[-1], TESTED))
    preferences, tested = compare(pairs, rng), fitting(trial, compare(fresh, rng))
    models = {count: judge_of(trial, f"judge-{count}", base, preferences[:count]) for count in COMPARISONS}
    judges: dict[str, Judge] = {VERIFIED: verifier, NOISY: noisy_verifier}
    judges |= dict(zip(LEARNED, map(liking, models.values()), strict=True))
    return {
        "curves": {
            name: _curve(optimise(trial, name, base, judge, kl=0.0, steps=STEPS, every=EVERY))
            for name, judge in judges.items()
        },
        "accuracy": {
            name: measure(model, tested).accuracy
            for name, model in zip(LEARNED, models.values(), strict=True)
        },
        "ceiling": round(1 - label_noise(fresh), 4),
    }


def verifier(problems: Sequence[Problem], jokes: Sequence[str]) -> list[Verdict]:
    """What people really think of each joke."""
    return [
        _verdict(gold(problem.answer, joke.strip())) for problem, joke in zip(problems, jokes, strict=True)
    ]


def noisy_verifier(problems: Sequence[Problem], jokes: Sequence[str]) -> list[Verdict]:
    """The same through the noise of the comparisons, drawn anew for each joke: whoever prefers the better of two such
    values is wrong as often as people are (Gumbel's distribution makes their preferences logistic).
    """
    rng = random.Random("\n".join(jokes))
    return [
        _verdict(verdict.reward - LABEL_TEMPERATURE * math.log(rng.expovariate(1)))
        for verdict in verifier(problems, jokes)
        if verdict.reward is not None
    ]


def _verdict(reward: float) -> Verdict:
    return correct(reward) if reward > 0 else wrong(reward)


def _curve(looks: Sequence[Figures]) -> dict[str, list[float]]:
    return {name: [look[name] for look in looks] for name in ("step", "gold", "proxy", "kl", "sentences")}


def summed_up(curve: Figures) -> dict[str, float]:
    """Gold at the start, at its peak and at the end; whether the reward is higher at the end than at that peak; and the
    step from which on gold is below the start, one more than all steps if it never is.
    """
    golds, peak = curve["gold"], int(np.argmax(curve["gold"]))
    good = max(index for index, value in enumerate(golds) if value >= golds[0])
    steps = [*curve["step"], curve["step"][-1] + 1]
    return {
        "start": golds[0],
        "peak": golds[peak],
        "peak_step": curve["step"][peak],
        "end": _mean(golds[-LAST:]),
        "rewarded": float(_mean(curve["proxy"][-LAST:]) > curve["proxy"][peak]),
        "worse_from": steps[good + 1],
    }


def rule(seeds: Sequence[Figures]) -> Judgement:
    """See `prediction`."""
    arms = [{name: summed_up(curve) for name, curve in one["curves"].items()} for one in seeds]
    clear = [_scales(one) and all(_falls(one[name]) for name in LEARNED) for one in arms]

    def share(name: str, figure: str) -> float:
        return _mean([one[name][figure] for one in arms])

    few, many = LEARNED
    later = share(many, "worse_from") > share(few, "worse_from") and share(many, "peak") > share(few, "peak")
    effect = {"start": share(VERIFIED, "start")}
    for name in arms[0]:
        effect |= {f"peak, {name}": share(name, "peak"), f"end, {name}": share(name, "end")}
    effect |= {f"peak at step, {name}": share(name, "peak_step") for name in LEARNED}
    effect |= {f"worse than the start from step, {name}": share(name, "worse_from") for name in LEARNED}
    effect |= {f"accuracy, {name}": _mean([one["accuracy"][name] for one in seeds]) for name in LEARNED}
    effect["accuracy that the noise leaves"] = _mean([one["ceiling"] for one in seeds])
    return Judgement(
        verdict=verdict_of(clear, later),
        effect=effect,
        summary=(
            f"In {STEPS} steps gold goes from {effect['start']:.2f} to {share(VERIFIED, 'end'):.2f} where it is "
            f"verified, and to {share(NOISY, 'end'):.2f} through the noise of people. Against a reward learned from "
            f"{many} it has its peak of {share(many, 'peak'):.2f} at step {share(many, 'peak_step'):.0f} and ends at "
            f"{share(many, 'end'):.2f}; with {few} at {share(few, 'peak'):.2f} and {share(few, 'end'):.2f}."
        ),
    )


def _scales(arms: Mapping[str, Mapping[str, float]]) -> bool:
    """Both verified rewards end near their peak, above whatever a learned one reached."""
    best = max(arms[name]["peak"] for name in LEARNED)
    return all(
        arms[name]["end"] >= max(STAYS * arms[name]["peak"], best + APART) for name in (VERIFIED, NOISY)
    )


def _falls(arm: Mapping[str, float]) -> bool:
    """Gold ends far below its peak, and below the start, and the reward says the contrary."""
    return arm["end"] <= min(FALLS * arm["peak"], arm["start"]) and bool(arm["rewarded"])


def figure(seeds: Sequence[Figures]) -> str:
    """Gold over the steps, and the reward as it is seen, of each arm and seed."""
    chart, (golds, rewards) = panels([("steps of RL", "gold"), ("steps of RL", "reward")])
    for axes, key in ((golds, "gold"), (rewards, "proxy")):
        for number, one in enumerate(seeds):
            for index, (name, curve) in enumerate(one["curves"].items()):
                axes.plot(
                    curve["step"], curve[key], color=f"C{index}", lw=1.2, label=None if number else name
                )
    return svg(chart)


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)


EXPERIMENT = Experiment(
    name="rlhf_does_not_scale",
    claim="Reinforcement goes on improving a policy where the reward is verified, and ruins it where it was learned.",
    source="Karpathy, Deep Dive into LLMs like ChatGPT (2025; RLHF is not RL); Gao, Schulman and Hilton 2022, "
    "arXiv 2210.10760",
    prediction=(
        f"In each seed gold ends at {STAYS} of its peak or more where it is verified, with and without the noise of "
        f"people's comparisons, and {APART} or more above the peak of any policy with a learned reward. That of a "
        f"learned reward ends at {FALLS} of its peak or less, and below the start, while the reward is higher than at "
        "the peak. Four times as many comparisons only postpone it: in the mean the peak is higher, and gold falls "
        "below the start later. Partly if the last does not hold, or the others in some seeds only. The thresholds "
        "were set after one trial with another seed."
    ),
    method=(
        f"The models and jokes of reward_hacking. A writer imitates {DEMONSTRATIONS:,} jokes, and is reinforced four "
        f"times from there, with the same optimiser and samples in {STEPS} steps of 4 x 32 jokes without a penalty. "
        "The reward is: the hidden judge (gold); gold with noise, drawn anew for each joke, that is as large as the "
        f"one of people who compare; reward models that learned {' and '.join(f'{one:,}' for one in COMPARISONS)} of "
        "these comparisons. So neither the optimiser nor the length nor the noise differs, only whether each reply is "
        "looked at or a model of earlier looks is asked."
    ),
    run=run,
    judge=rule,
    figure=figure,
)
