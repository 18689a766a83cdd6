"""R1's curves at small scale: replies grow where that pays, and elsewhere, too, unless tokens have a price."""

import random
from collections.abc import Sequence
from typing import Any

import msgspec

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
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, means_of
from crawltalk.lab.student import Example, Student
from crawltalk.posttraining.reinforce import Group
from crawltalk.recipe.grpo import Reinforce
from crawltalk.rewards.verdict import Judge, Verdict

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
BY_HEART = 0.5
"""The share of single steps among the demonstrations. All of them are shown, those of the exam, too: they are to be
known by heart, so that a direct answer does.
"""
PRETRAINING, FINE_TUNING = 150, 2000
CONFIG = Reinforce(steps=160, groups=32, samples=8, max_tokens=64)
EVERY = 40
EASY, HARD = 0, 4
"""Places of the shortest chain, and of the one of five steps, in `LENGTHS`."""
PRICES = {"free": 0.0, "priced": 0.015}
"""What a token costs, by reinforcement."""
LEAST_DIRECT = 0.9
"""Direct answers to single steps that have to be right before RL."""
LEAST_RATIO, MOST_RATIO, MOST_LOST = 1.5, 1.1, 0.1


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

    arms = {}
    for name, price in PRICES.items():
        policy = student.copy()
        course = policy.reinforce(
            name, problems, priced(price), CONFIG, REWARDED, evaluate=_evaluate, every=EVERY
        )
        arms[name] = {
            "after": [_measure(policy, steps) for steps in LENGTHS],
            "curve": {key: course.curve(key) for key in ("accuracy", "length")},
            "stages": [
                {"step": row["step"] + 1, "by_length": row["by_length"], "samples": row["samples"]}
                for row in course.rows
                if "by_length" in row
            ],
        }
    return {"before": before, "accuracy_of_votes": votes, "arms": arms}


def priced(price: float) -> Judge:
    """The judge of chains; a reply costs so much a character, right or wrong."""

    def judged(problems: Sequence[Problem], replies: Sequence[str]) -> list[Verdict]:
        return [
            msgspec.structs.replace(verdict, reward=(verdict.reward or 0.0) - price * len(reply))
            for verdict, reply in zip(judge(problems, replies), replies, strict=True)
        ]

    return judged


def _demonstration(rng: random.Random) -> Example:
    if rng.random() < BY_HEART:
        chain = draw(rng, 1, rng.choice(("train", "test")))
    else:
        chain = draw(rng, rng.choice(LENGTHS[1:]), "train")
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
    seeds = [_summed_up(row) for row in figures]
    means = means_of(seeds)
    known = all(one["direct_1_step"] >= LEAST_DIRECT for one in seeds)
    grows = known and all(
        one["length_ratio_5_steps_free"] >= LEAST_RATIO and one["gain_5_steps_free"] > 0.2 for one in seeds
    )
    steered = all(
        one["length_ratio_1_step_priced"] <= MOST_RATIO < one["length_ratio_1_step_free"]
        and one["length_ratio_5_steps_priced"] >= LEAST_RATIO
        and one["gain_5_steps_priced"] >= one["gain_5_steps_free"] - MOST_LOST
        for one in seeds
    )
    return Judgement(
        verdict="confirmed" if grows and steered else "partly" if grows else "not at this scale",
        effect=means,
        summary=(
            f"Replies to chains of five steps become {means['length_ratio_5_steps_free']:.1f} times as long and gain "
            f"{means['gain_5_steps_free']:.2f}. Single steps, which a direct answer gets right in "
            f"{means['direct_1_step']:.0%}, become {means['length_ratio_1_step_free']:.2f} times as long, too, and "
            f"{means['length_ratio_1_step_priced']:.2f} times where a token costs {PRICES['priced']}, while those of "
            f"five steps become {means['length_ratio_5_steps_priced']:.1f} times as long and gain "
            f"{means['gain_5_steps_priced']:.2f}. {VOTES} direct answers, as many tokens as one worked one, vote "
            f"rightly on {means['votes_5_steps']:.2f} of those chains."
        ),
    )


def _summed_up(row: Figures) -> dict[str, float]:
    """The figures of a seed that count."""
    easy, hard = row["before"][EASY], row["before"][HARD]
    summed_up = {
        "direct_1_step": easy["accuracy_direct"],
        "worked_1_step": easy["accuracy_worked"],
        "direct_5_steps": hard["accuracy_direct"],
        "votes_5_steps": row["accuracy_of_votes"][HARD],
        "again_5_steps_before": hard["again"],
    }
    for name, arm in row["arms"].items():
        for about, place in (("1_step", EASY), ("5_steps", HARD)):
            before, after = row["before"][place], arm["after"][place]
            summed_up[f"length_ratio_{about}_{name}"] = after["length"] / before["length"]
            summed_up[f"gain_{about}_{name}"] = after["accuracy"] - before["accuracy"]
        summed_up[f"again_5_steps_{name}"] = arm["after"][HARD]["again"]
    return summed_up


def figure(figures: Sequence[Figures]) -> str:
    """Tokens of a reply over the steps of RL, for each length of chain, by what a token costs; means over the seeds."""
    chart, both = panels([("steps of RL", f"tokens of a reply, {name}") for name in PRICES])
    for axes, name in zip(both, PRICES, strict=True):
        stages = [row["arms"][name]["stages"] for row in figures]
        for place, steps in enumerate(LENGTHS):
            lengths = [
                mean([row["before"][place]["length"] for row in figures]),
                *(
                    mean([stage["by_length"][place]["length"] for stage in alike])
                    for alike in zip(*stages, strict=True)
                ),
            ]
            xs = [0, *(stage["step"] for stage in stages[0])]
            label = f"{steps} step{'s' * (steps > 1)}" if axes is both[-1] else None
            axes.plot(xs, lengths, marker="o", markersize=3, linewidth=1.2, label=label)
        axes.set_ylim(0, CONFIG.max_tokens)  # both alike, with room for the legend
    return svg(chart)


EXPERIMENT = Experiment(
    name="rl_lengthens",
    claim="RL makes replies longer where steps that are written down pay, and where a direct answer would do, too, "
    "unless tokens have a price.",
    source="Guo et al. 2025 (DeepSeek-R1), figure 3: the length of replies grows during RL; Chen et al. 2024, arXiv "
    "2412.21187: long thoughts about 2 + 3; Arora and Zanette 2025, arXiv 2502.04463: a price on length",
    prediction=(
        f"Direct answers to single steps are right {LEAST_DIRECT} of the time at least before RL. In each seed replies "
        f"to chains of five steps become {LEAST_RATIO} times as long at least, and more accurate by more than 0.2. "
        f"Those to single steps become more than {MOST_RATIO} times as long without a price, and at most {MOST_RATIO} "
        f"times with it, while those of five steps still become {LEAST_RATIO} times as long and gain at most "
        f"{MOST_LOST} less. Partly: without the last sentence. In two pilots of other seeds single steps became 1.6 "
        "and 1.7 times as long without a price, and 1.0 times with it. Steps that are done again are counted, "
        "without a prediction."
    ),
    method=(
        f"As rl_selects, with chains of {LENGTHS[0]} to {LENGTHS[-1]} steps, and demonstrators who see half of their "
        f"own mistakes and write the step again behind a mark; {BY_HEART:.0%} of the demonstrations are single steps, "
        f"which are all shown, so that they are known by heart. {CONFIG.steps} steps of GRPO on all lengths, once for "
        f"right answers alone, once with {PRICES['priced']} off for each token of a reply. Before, every {EVERY} steps "
        "and after: accuracy, length and marks of sampled replies to chains, which are held out from two steps on; "
        f"direct against worked replies, and {VOTES} direct ones that vote, at as many tokens."
    ),
    run=run,
    judge=rule,
    figure=figure,
)
