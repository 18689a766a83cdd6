"""Accuracy and length rise together under RL because it selects.

A first control, demonstrators who are careless in every step, did not shorten replies: the likeliest step is right all
the same, so RL mends the steps first and lengthens replies then. It stays beside the one that holds: steps of another
problem, which no sharpening makes right.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

from crawltalk.core.charts import panels, svg
from crawltalk.lab.chains import (
    ALPHABET,
    REWARDED,
    asked,
    draw,
    drawn_problems,
    exam,
    facts,
    judge,
    mean,
    measure,
    pass_at,
    results,
    terse,
    worked,
)
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial
from crawltalk.lab.student import Example, Student
from crawltalk.recipe.grpo import Reinforce
from crawltalk.tasks.chains import Chain

STEPS = 5
"""Of a chain."""
WORKED_SHARE = 0.4
"""Of the demonstrations."""
RIGHT = 0.79
"""The share of demonstrations, worked or terse, that end with the right digit."""
MISTAKES, MANY_MISTAKES = 0.058, 0.5
"""In a step of a worked demonstration: as few as make 0.79 of them right, and so many that 0.18 are."""
PRETRAINING, FINE_TUNING = 150, 450
"""Steps, of 16 and of 64 examples."""
CONFIG = Reinforce(steps=80, groups=32, samples=8, max_tokens=48)
SHOWN = 2
"""Held-out problems whose replies are kept at several steps."""
LEAST_GAIN, LEAST_RATIO = 0.4, 1.5


def run(trial: Trial) -> Figures:
    """The student after pretraining, after SFT and after RL; and the same with other demonstrators."""
    student = Student(trial, ALPHABET)
    student.learn("pretraining", facts, PRETRAINING, 16, learned=results)

    def good(chain: Chain, rng: random.Random) -> str:
        return worked(chain, rng, MISTAKES)

    def careless(chain: Chain, rng: random.Random) -> str:
        return worked(chain, rng, MANY_MISTAKES)

    def unrelated(chain: Chain, rng: random.Random) -> str:
        return worked(draw(rng, STEPS, "train"), rng, MISTAKES)

    return {
        "selected": _taught_and_rewarded(student.copy(), "selected", good, more=True),
        "unrelated": _taught_and_rewarded(student.copy(), "unrelated", unrelated),
        "careless": _taught_and_rewarded(student.copy(), "careless", careless),
    }


def _taught_and_rewarded(
    student: Student, name: str, write: Callable[[Chain, random.Random], str], *, more: bool = False
) -> Figures:
    def demonstration(rng: random.Random) -> Example:
        chain = draw(rng, STEPS, "train")
        reply = write(chain, rng) if rng.random() < WORKED_SHARE else terse(chain, rng, 1 - RIGHT)
        return Example(asked(chain).prompt, reply)

    problems = exam(STEPS, 400)
    student.learn(f"{name}.sft", demonstration, FINE_TUNING)
    before = {
        "sampled": measure(student, problems, 1.0),
        "greedy": measure(student, problems),
        "pass_at_16": pass_at(student, problems[:100], 16),
    }
    longer: Figures = {}
    if more:
        taught = student.copy()
        taught.learn(f"{name}.more_sft", demonstration, CONFIG.steps)
        longer = {"more_sft": measure(taught, problems, 1.0)}
    course = student.reinforce(
        f"{name}.rl",
        drawn_problems(STEPS, CONFIG.groups, student.trial.seed),
        judge,
        CONFIG,
        REWARDED,
        evaluate=_samples,
        every=20,
    )
    return {
        "before": before,
        "after": {"sampled": measure(student, problems, 1.0), "greedy": measure(student, problems)},
        "curve": {key: course.curve(key) for key in ("accuracy", "length")},
        "samples": [
            {"step": row["step"] + 1, "replies": row["samples"]} for row in course.rows if "samples" in row
        ],
        **longer,
    }


def _samples(student: Student) -> dict[str, Any]:
    shown = exam(STEPS, SHOWN)
    replies = student.answer([problem.prompt for problem in shown], 1.0)
    return {
        "samples": {
            problem.prompt + reply.text: problem.answer for problem, reply in zip(shown, replies, strict=True)
        }
    }


def rule(figures: Sequence[Figures]) -> Judgement:
    """See `prediction`."""
    arms = [row["selected"] for row in figures]
    before, after = ([arm[when]["sampled"] for arm in arms] for when in ("before", "after"))
    gains = [b["accuracy"] - a["accuracy"] for a, b in zip(before, after, strict=True)]
    ratios = [b["length"] / a["length"] for a, b in zip(before, after, strict=True)]
    falls, careless = (
        [row[arm]["after"]["sampled"]["length"] / row[arm]["before"]["sampled"]["length"] for row in figures]
        for arm in ("unrelated", "careless")
    )
    more = [arm["more_sft"]["accuracy"] - arm["before"]["sampled"]["accuracy"] for arm in arms]
    rose = min(gains) >= LEAST_GAIN and min(ratios) >= LEAST_RATIO
    selects = max(falls) < 1.0 and max(more) < LEAST_GAIN / 2
    known = [arm["before"]["pass_at_16"] for arm in arms]
    return Judgement(
        verdict="confirmed" if rose and selects else "partly" if rose else "not at this scale",
        effect={
            "accuracy_before": mean([a["accuracy"] for a in before]),
            "accuracy_after": mean([b["accuracy"] for b in after]),
            "least_gain": round(min(gains), 4),
            "length_before": mean([a["length"] for a in before]),
            "length_after": mean([b["length"] for b in after]),
            "pass_at_16_before": mean(known),
            "length_ratio_unrelated": mean(falls),
            "length_ratio_careless": mean(careless),
            "gain_by_more_sft": mean(more),
        },
        summary=(
            f"Accuracy rises by {min(gains):.2f} at least, and replies are {min(ratios):.1f} times as long or more. "
            f"Before RL {mean(known):.0%} of the problems have a right reply among 16, so it is selection. Where "
            f"worked answers are steps of another problem, RL makes replies {mean(falls):.2f} times as long."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """Accuracy and length over the steps, of both arms."""
    chart, (left, right) = panels([("steps of RL", "accuracy"), ("steps of RL", "tokens of a reply")])
    names = {
        "selected": "worked answers are better",
        "unrelated": "control: of another problem",
        "careless": "control: careless",
    }
    for axes, key in ((left, "accuracy"), (right, "length")):
        for index, (arm, label) in enumerate(names.items()):
            for number, row in enumerate(figures):
                curve = row[arm]["curve"][key]
                axes.plot(curve, color=f"C{index}", linewidth=1.2, label=None if number else label)
    return svg(chart)


EXPERIMENT = Experiment(
    name="rl_selects",
    claim="RL makes answers longer and more accurate at once where longer answers are more accurate: it selects.",
    source="Karpathy, Deep Dive into LLMs (2025), on DeepSeek-R1 (Guo et al. 2025, section 2.2.4)",
    prediction=(
        f"In each seed the accuracy of sampled replies to held-out problems rises by {LEAST_GAIN} at least, and their "
        f"length by a factor of {LEAST_RATIO}. It is selection if RL shortens replies where worked answers cannot be "
        "better than terse ones, and if as many steps of further SFT give less than half of the rise. Else: partly."
    ),
    method=(
        f"A Transformer of 0.1 M parameters (RoPE) learns the table of single steps, then {WORKED_SHARE:.0%} worked "
        f"and {1 - WORKED_SHARE:.0%} terse answers to chains of {STEPS} steps, of demonstrators who are right {RIGHT} "
        "of the time. GRPO without division by the deviation, token-level loss, no KL, temperature 1, "
        f"{CONFIG.groups} problems x {CONFIG.samples} replies, AdamW at {REWARDED.adamw_lr:g}, {CONFIG.steps} steps; "
        "only the last digit is rewarded. Controls: worked demonstrations of another problem; of demonstrators who "
        "get every second step wrong; more SFT instead of RL."
    ),
    run=run,
    judge=rule,
    figure=figure,
)
