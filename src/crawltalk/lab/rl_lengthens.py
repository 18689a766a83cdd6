"""R1's curves at small scale: replies grow where that pays, and only there."""

import random
from collections.abc import Sequence
from typing import Any

from crawltalk.core.charts import panels, svg
from crawltalk.core.types import Problem
from crawltalk.lab.chains import (
    AGAIN,
    ALPHABET,
    REWARDED,
    asked,
    draw,
    exam,
    facts,
    is_worked,
    judge,
    mean,
    results,
    scores,
    terse,
    worked,
)
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial
from crawltalk.lab.student import Example, Student
from crawltalk.posttraining.reinforce import Group
from crawltalk.recipe.grpo import Reinforce

LENGTHS = range(1, 7)
"""Steps of a chain."""
WORKED_SHARE, MISTAKES = 0.4, 0.058
"""As in `rl_selects`: of the demonstrations, and in a step. Direct answers are wrong as often as worked ones of as many
steps, so demonstrators are no better in one way than in the other.
"""
NOTICES = 0.5
"""The share of the mistakes in worked answers that demonstrators see and mend."""
VOTES = 16
"""Direct answers that take as many tokens as one worked one."""
PRETRAINING, FINE_TUNING = 150, 600
CONFIG = Reinforce(steps=100, groups=32, samples=8, max_tokens=64)
EVERY = 20
EASY, HARD = 0, 4
"""Places of the shortest chain, and of the one of five steps, in `LENGTHS`."""
LEAST_RATIO, MOST_RATIO = 1.5, 1.1


def run(trial: Trial) -> Figures:
    """Accuracy, length and re-evaluations for each length of chain, before, during and after RL."""
    student = Student(trial, ALPHABET + AGAIN)
    student.learn("pretraining", facts, PRETRAINING, 16, learned=results)
    student.learn("sft", _demonstration, FINE_TUNING)
    before = [_measure(student, steps) for steps in LENGTHS]
    votes = [_votes(student, steps) for steps in LENGTHS]

    def problems(number: int, _: Sequence[Group]) -> list[Problem]:
        rng = random.Random(f"problems {trial.seed} {number}")
        return [asked(draw(rng, rng.choice(LENGTHS), "train")) for _ in range(CONFIG.groups)]

    course = student.reinforce("rl", problems, judge, CONFIG, REWARDED, evaluate=_evaluate, every=EVERY)
    return {
        "before": before,
        "accuracy_of_votes": votes,
        "after": [_measure(student, steps) for steps in LENGTHS],
        "curve": {key: course.curve(key) for key in ("accuracy", "length")},
        "stages": [
            {"step": row["step"] + 1, "by_length": row["by_length"], "samples": row["samples"]}
            for row in course.rows
            if "by_length" in row
        ],
    }


def _demonstration(rng: random.Random) -> Example:
    chain = draw(rng, rng.choice(LENGTHS), "train")
    reply = terse(chain, rng, 1 - (1 - MISTAKES * (1 - NOTICES)) ** len(chain.steps))
    if rng.random() < WORKED_SHARE:
        reply = worked(chain, rng, MISTAKES, NOTICES)
    return Example(asked(chain).prompt, reply)


def _measure(student: Student, steps: int, count: int = 200) -> dict[str, float]:
    """Sampled replies to held-out chains: how right, how long; worked and direct ones apart."""
    problems = exam(steps, count)
    replies = student.answer([problem.prompt for problem in problems], 1.0, CONFIG.max_tokens)
    right, thinks = scores(problems, replies), [is_worked(reply.text) for reply in replies]
    return {
        "accuracy": mean(right),
        "length": mean([reply.tokens for reply in replies]),
        "worked": mean(thinks),
        "accuracy_worked": mean([one for one, thought in zip(right, thinks, strict=True) if thought]),
        "accuracy_direct": mean([one for one, thought in zip(right, thinks, strict=True) if not thought]),
        "again": mean([reply.text.count(AGAIN) for reply in replies]),
    }


def _votes(student: Student, steps: int, count: int = 50) -> float:
    """How often the most frequent one of `VOTES` direct answers is right."""
    problems, samples = exam(steps, count), 3 * VOTES
    prompts = [problem.prompt for problem in problems for _ in range(samples)]
    texts = [reply.text for reply in student.answer(prompts, 1.0, CONFIG.max_tokens)]
    elected = []
    for index, problem in enumerate(problems):
        said = [one for one in texts[index * samples : (index + 1) * samples] if not is_worked(one)][:VOTES]
        elected.append(bool(said) and max(sorted(set(said)), key=said.count) == problem.answer)
    return mean(elected)


def _evaluate(student: Student) -> dict[str, Any]:
    shown = [exam(LENGTHS[place], 1)[0] for place in (EASY, HARD)]
    replies = student.answer([problem.prompt for problem in shown], 1.0, CONFIG.max_tokens)
    return {
        "by_length": [_measure(student, steps, 100) for steps in LENGTHS],
        "samples": [problem.prompt + reply.text for problem, reply in zip(shown, replies, strict=True)],
    }


def rule(figures: Sequence[Figures]) -> Judgement:
    """See `prediction`."""

    def ratios(place: int, key: str) -> list[float]:
        return [row["after"][place][key] / max(row["before"][place][key], 1e-9) for row in figures]

    def means(when: str, place: int, key: str) -> float:
        return mean([row[when][place][key] for row in figures])

    votes = mean([row["accuracy_of_votes"][HARD] for row in figures])
    hard, easy = ratios(HARD, "length"), ratios(EASY, "length")
    gains = [row["after"][HARD]["accuracy"] - row["before"][HARD]["accuracy"] for row in figures]
    grows, stays = min(hard) >= LEAST_RATIO and min(gains) > 0.2, max(easy) <= MOST_RATIO
    return Judgement(
        verdict="confirmed" if grows and stays else "partly" if grows else "not at this scale",
        effect={
            "length_ratio_5_steps": mean(hard),
            "length_ratio_1_step": mean(easy),
            "gain_5_steps": mean(gains),
            "gain_1_step": means("after", EASY, "accuracy") - means("before", EASY, "accuracy"),
            "direct_1_step": means("before", EASY, "accuracy_direct"),
            "direct_5_steps": means("before", HARD, "accuracy_direct"),
            "votes_5_steps": votes,
            "worked_5_steps_after": means("after", HARD, "accuracy_worked"),
            "again_before": means("before", HARD, "again"),
            "again_after": means("after", HARD, "again"),
        },
        summary=(
            f"Replies to chains of five steps become {min(hard):.1f} times as long or more and gain {min(gains):.2f}; "
            f"those to single steps become {mean(easy):.2f} times as long. {VOTES} direct answers, as many tokens as "
            f"one worked one, vote rightly on {votes:.2f} of those chains. "
            f"Steps done again: {means('before', HARD, 'again'):.2f} a reply before RL, "
            f"{means('after', HARD, 'again'):.2f} after."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """Accuracy and length over the steps of RL, for each length of chain; means over the seeds."""
    chart, (left, right) = panels([("steps of RL", "accuracy"), ("steps of RL", "tokens of a reply")])
    for place, steps in enumerate(LENGTHS):
        xs = [0, *(stage["step"] for stage in figures[0]["stages"])]
        for axes, key in ((left, "accuracy"), (right, "length")):
            ys = [
                mean([row["before"][place][key] for row in figures]),
                *(
                    mean([row["stages"][index]["by_length"][place][key] for row in figures])
                    for index in range(len(xs) - 1)
                ),
            ]
            axes.plot(xs, ys, marker="o", markersize=3, linewidth=1.2, label=f"{steps} steps")
    return svg(chart)


EXPERIMENT = Experiment(
    name="rl_lengthens",
    claim="RL makes replies longer where steps that are written down pay, and not where a direct answer will do.",
    source="Guo et al. 2025 (DeepSeek-R1), figure 3: the length of replies grows during RL",
    prediction=(
        f"In each seed replies to chains of five steps become {LEAST_RATIO} times as long, and more accurate by 0.2 at "
        f"least; replies to a single step become at most {MOST_RATIO} times as long. Partly: only the former. Steps "
        "that are done again are counted, without a prediction."
    ),
    method=(
        f"As rl_selects, with chains of {LENGTHS[0]} to {LENGTHS[-1]} steps, and demonstrators who see half of their "
        f"own mistakes and write the step again behind a mark; {CONFIG.steps} steps of GRPO on all lengths. Before, "
        f"every {EVERY} steps and after: accuracy, length and marks of sampled replies to held-out chains; direct "
        f"against worked replies, and {VOTES} direct ones that vote, at as many tokens."
    ),
    run=run,
    judge=rule,
    figure=figure,
)
