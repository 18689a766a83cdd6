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
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, means_of, verdict_of
from crawltalk.lab.jokes import LABEL_TEMPERATURE, compare, conversations, gold, label_noise
from crawltalk.lab.joking import Teller, fitting, judge_of, liking, optimise, pairs_among, writer
from crawltalk.posttraining.reward import measure
from crawltalk.rewards.verdict import Judge, Verdict, correct, wrong

DEMONSTRATIONS, POOL, TESTED = 1000, 600, 600
"""Jokes to imitate; jokes of the writer about each place; pairs that reward models are measured on."""
COMPARISONS = (600, 2400)
"""That a reward model learns; the first ones are among the second."""
MODELS = 5
"""Reward models of each size, of comparisons that have none in common. Which hole of its own reward model a policy
finds is luck: of six policies in a trial, four ended at a gold of 0.0 to 0.3 and two, which kept
to sentences and told nearly one joke only, at 1.5 and 1.8. One policy of each size says little of learned rewards.
"""
STEPS, EVERY, LAST = 96, 6, 3
"""Of a reinforcement, about twice as many as those to the peak of a learned reward; between two looks at it; looks
whose mean is the end.
"""
VERIFIED, NOISY = "verified", "verified, noisy"
LEARNED = [f"{count:,} comparisons" for count in COMPARISONS]
STAYS, FALLS, APART = 0.9, 0.5, 0.5
"""Share of its peak at which a reinforcement ends that scales, or that does not; gold between them."""


def run(trial: Trial) -> Figures:
    """One seed: a writer, and reinforcements of it that differ in the reward alone."""
    rng = random.Random(f"scaling {trial.seed}")
    base = writer(trial, "writer", conversations(DEMONSTRATIONS, rng))
    told = Teller(base).jokes(base, POOL, trial.seed)
    pairs, fresh = (pairs_among(told, count, rng) for count in (MODELS * COMPARISONS[-1], TESTED))
    preferences, tested = compare(pairs, rng), fitting(trial, compare(fresh, rng))
    of_each = [preferences[index::MODELS] for index in range(MODELS)]
    models = {
        name: [
            judge_of(trial, f"judge-{count}-{index}", base, own[:count]) for index, own in enumerate(of_each)
        ]
        for name, count in zip(LEARNED, COMPARISONS, strict=True)
    }
    judges: dict[str, list[Judge]] = {VERIFIED: [verifier], NOISY: [noisy_verifier]}
    judges |= {name: [liking(model) for model in alike] for name, alike in models.items()}
    return {
        "curves": {
            name: [
                _curve(optimise(trial, f"{name}-{index}", base, judge, kl=0.0, steps=STEPS, every=EVERY))
                for index, judge in enumerate(alike)
            ]
            for name, alike in judges.items()
        },
        "accuracy": {
            name: _mean([measure(model, tested).accuracy for model in alike])
            for name, alike in models.items()
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
    """Of one policy: gold at the start, at its peak and at the end; how much higher the reward is at the end than at
    that peak; whether the policy is ruined; and the step from which on gold is below the start, one more than all steps
    if it never is.
    """
    golds, peak = curve["gold"], int(np.argmax(curve["gold"]))
    good = max(index for index, value in enumerate(golds) if value >= golds[0])
    steps = [*curve["step"], curve["step"][-1] + 1]
    end = _mean(golds[-LAST:])
    return {
        "start": golds[0],
        "peak": golds[peak],
        "peak_step": curve["step"][peak],
        "end": end,
        "rewarded": _mean(curve["proxy"][-LAST:]) - curve["proxy"][peak],
        "ruined": float(end <= min(FALLS * golds[peak], golds[0])),
        "worse_from": steps[good + 1],
    }


def rule(seeds: Sequence[Figures]) -> Judgement:
    """See `prediction`."""
    arms = [
        {name: means_of([summed_up(curve) for curve in curves]) for name, curves in one["curves"].items()}
        for one in seeds
    ]
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
    effect |= {f"policies ruined, {name}": share(name, "ruined") for name in LEARNED}
    effect |= {f"accuracy, {name}": _mean([one["accuracy"][name] for one in seeds]) for name in LEARNED}
    effect["accuracy that the noise leaves"] = _mean([one["ceiling"] for one in seeds])
    return Judgement(
        verdict=verdict_of(clear, later),
        effect=effect,
        summary=(
            f"In {STEPS} steps gold goes from {effect['start']:.2f} to {share(VERIFIED, 'end'):.2f} where it is "
            f"verified, and to {share(NOISY, 'end'):.2f} through the noise of people. Against a reward learned from "
            f"{many} it has its peak of {share(many, 'peak'):.2f} at step {share(many, 'peak_step'):.0f} and ends at "
            f"{share(many, 'end'):.2f}; with {few} at {share(few, 'peak'):.2f} and {share(few, 'end'):.2f}. Of these "
            f"policies {share(many, 'ruined'):.0%} and {share(few, 'ruined'):.0%} are ruined."
        ),
    )


def _scales(arms: Mapping[str, Mapping[str, float]]) -> bool:
    """Both verified rewards end near their peak, above what learned ones reached."""
    best = max(arms[name]["peak"] for name in LEARNED)
    return all(
        arms[name]["end"] >= max(STAYS * arms[name]["peak"], best + APART) for name in (VERIFIED, NOISY)
    )


def _falls(arm: Mapping[str, float]) -> bool:
    """Gold ends far below its peak, and below the start, and the reward says the contrary."""
    return arm["end"] <= min(FALLS * arm["peak"], arm["start"]) and arm["rewarded"] > 0


def figure(seeds: Sequence[Figures]) -> str:
    """Gold over the steps, and the reward as it is seen, of each arm and seed."""
    chart, (golds, rewards) = panels([("steps of RL", "gold"), ("steps of RL", "reward")])
    for axes, key in ((golds, "gold"), (rewards, "proxy")):
        for number, one in enumerate(seeds):
            for index, (name, curves) in enumerate(one["curves"].items()):
                for which, curve in enumerate(curves):
                    label = None if number or which else name
                    axes.plot(curve["step"], curve[key], color=f"C{index}", lw=0.8, label=label)
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
        f"people's comparisons, and {APART} or more above the peak that policies with a learned reward have. Those of "
        f"{MODELS} learned rewards of each size end at {FALLS} of their peak or less, and below the start, while the "
        "reward is higher than at the peak, each figure as the mean of these policies. Four times as many comparisons "
        "only postpone it: in the mean the peak is higher, and gold falls below the start later. Partly if the last "
        "does not hold, or the others in some seeds only. The thresholds were set after one trial with another seed "
        "and one learned reward of each size, and kept when there were more."
    ),
    method=(
        f"The models and jokes of reward_hacking. A writer imitates {DEMONSTRATIONS:,} jokes, and is reinforced "
        f"{2 + 2 * MODELS} times from there, with the same optimiser and samples in {STEPS} steps of 4 x 32 jokes "
        "without a penalty. The reward is: the hidden judge (gold); gold with noise, drawn anew for each joke, that is "
        f"as large as the one of people who compare; {MODELS} reward models each that learned "
        f"{' and '.join(f'{one:,}' for one in COMPARISONS)} of these comparisons, of which no two of one size share "
        "any. So neither the optimiser nor the length nor the noise differs, only whether each reply is looked at or a "
        "model of earlier looks is asked."
    ),
    run=run,
    judge=rule,
    figure=figure,
)
