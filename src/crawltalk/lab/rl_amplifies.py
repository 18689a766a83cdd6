"""RL makes a rare behaviour the rule: how rare may worked answers be?"""

import random
from collections.abc import Sequence
from dataclasses import replace

from crawltalk.core.charts import GREY, panels, svg
from crawltalk.core.types import Problem
from crawltalk.lab.chains import (
    ALPHABET,
    asked,
    draw,
    drawn_problems,
    exam,
    facts,
    forecast,
    judge,
    mean,
    measure,
    results,
    terse,
    worked,
)
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial
from crawltalk.lab.student import Example, Student
from crawltalk.posttraining.forecast import CLEAR
from crawltalk.recipe import Optim
from crawltalk.recipe.grpo import Reinforce

STEPS = 5
"""Of a chain."""
START = "#"
"""Begins a worked answer."""
SHARES = (0.0, 0.01, 0.02, 0.03, 0.1, 0.2, 0.3, 0.5)
RIGHT, MISTAKES = 0.79, 0.058
"""As in `rl_selects`."""
PRETRAINING, READING, FINE_TUNING = 150, 400, 300
"""Steps: single steps; worked solutions, as documents; demonstrations."""
TAUGHT = Optim(muon_lr=0.0, adamw_lr=7e-4, warmup=0.05, cooldown=0.2, spike=0.0)
CONFIG = Reinforce(steps=120, groups=32, samples=8, max_tokens=48)
REWARDED = Optim(muon_lr=0.0, adamw_lr=3e-4, warmup=20 / 120, cooldown=0.0, spike=0.0)
VARIED = 0.03
"""The share at which the rates and the start are varied, one at a time."""
SOLVED, HALF = 0.9, 0.5


def run(trial: Trial) -> Figures:
    """A cell for each share, from one base; and three variations."""
    cells: list[Figures] = []
    base = _base(trial, "base", START)
    for share in SHARES:
        cells.append(_cell(base.copy(), f"share_{share:g}", share))
    faster = replace(REWARDED, adamw_lr=5e-4, warmup=0.0)
    variations = {
        "rl_rate_5e-4_no_warmup": _cell(base.copy(), "faster_rl", VARIED, rewarded=faster),
        "sft_rate_1.4e-3": _cell(base.copy(), "faster_sft", VARIED, taught=replace(TAUGHT, adamw_lr=1.4e-3)),
        "no_start_token": _cell(_base(trial, "base_without_start", ""), "no_start", VARIED, start=""),
    }
    return {"cells": cells, "variations": variations}


def _base(trial: Trial, name: str, start: str) -> Student:
    """A student that has read worked solutions."""

    def solution(rng: random.Random) -> Example:
        chain = draw(rng, STEPS, "train")
        return Example("", f"{asked(chain).prompt}{start}{worked(chain, rng, 0.0)}")

    def is_reply(text: str) -> list[bool]:
        return [index > text.index("?") for index in range(len(text))]

    student = Student(trial, ALPHABET + START)
    student.learn(f"{name}.facts", facts, PRETRAINING, 16, learned=results)
    student.learn(f"{name}.solutions", solution, READING, learned=is_reply)
    return student


def _cell(
    student: Student,
    name: str,
    share: float,
    *,
    start: str = START,
    taught: Optim = TAUGHT,
    rewarded: Optim = REWARDED,
) -> Figures:
    def demonstration(rng: random.Random) -> Example:
        chain = draw(rng, STEPS, "train")
        reply = terse(chain, rng, 1 - RIGHT)
        if rng.random() < share:
            reply = f"{start}{worked(chain, rng, MISTAKES)}"
        return Example(asked(chain).prompt, reply)

    problems = exam(STEPS, 400)
    student.learn(f"{name}.sft", demonstration, FINE_TUNING, optim=taught)
    sampled, greedy = measure(student, problems, 1.0), measure(student, problems)
    opened = measure(student, [_opened(problem, start) for problem in problems], 1.0)
    top = mean([_top_digit(student, problem.prompt) for problem in problems[:100]])
    expected = forecast(student, problems[:64], 16)
    course = student.reinforce(
        f"{name}.rl", drawn_problems(STEPS, CONFIG.groups, student.trial.seed), judge, CONFIG, rewarded
    )
    return {
        "share": share,
        "sft": {"sampled": sampled, "greedy": greedy, "accuracy_worked": opened["accuracy"]},
        "top": top,
        "forecast": str(expected),
        "pull": expected.pull,
        "rl": {"sampled": measure(student, problems, 1.0), "greedy": measure(student, problems)},
        "curve": {key: course.curve(key) for key in ("accuracy", "length")},
        "stopped": course.stopped,
    }


def _opened(problem: Problem, start: str) -> Problem:
    """The problem with a worked answer begun: its first number and sign."""
    return Problem(
        prompt=f"{problem.prompt}{start}{problem.prompt[:2]}", answer=problem.answer, task=problem.task
    )


def _top_digit(student: Student, prompt: str) -> float:
    """The probability of the likeliest terse answer among all terse answers."""
    chances = [chance for character, chance in student.follows(prompt).items() if character.isdecimal()]
    return max(chances) / sum(chances)


def _solved(cell: Figures) -> bool:
    return cell["rl"]["greedy"]["accuracy"] >= SOLVED


def _better(cell: Figures) -> bool:
    """Whether worked answers are more accurate than terse ones before RL."""
    return cell["sft"]["accuracy_worked"] > cell["sft"]["sampled"]["accuracy_terse"]


def _least(cells: Sequence[Figures], reached: Sequence[bool]) -> float:
    """The least share from which on all shares reach it; 1 if none does."""
    least = 1.0
    for cell, good in reversed(list(zip(cells, reached, strict=True))):
        if not good:
            break
        least = cell["share"]
    return least


def predicted_threshold(top: float) -> float:
    """The share of worked demonstrations at which the likeliest reply is as likely to be worked as to be the terse
    answer whose probability among terse ones is `top`.
    """
    return top / (1 + top)


def rule(figures: Sequence[Figures]) -> Judgement:
    """See `prediction`."""
    seeds = [row["cells"] for row in figures]
    rl = [_least(cells, [_solved(cell) for cell in cells]) for cells in seeds]
    sft = [_least(cells, [cell["sft"]["greedy"]["accuracy"] >= HALF for cell in cells]) for cells in seeds]
    everything = [cell for cells in seeds for cell in cells]
    necessary = all(_better(cell) for cell in everything if _solved(cell))
    clear = [cell for cell in everything if abs(cell["pull"]) >= CLEAR]
    foretold = [
        (cell["pull"] > 0) == (cell["rl"]["sampled"]["length"] > cell["sft"]["sampled"]["length"])
        for cell in clear
    ]
    top = mean([cell["top"] for cell in everything])
    amplified = all(low <= high / 3 for low, high in zip(rl, sft, strict=True))
    return Judgement(
        verdict="confirmed" if amplified and necessary else "partly" if amplified else "not at this scale",
        effect={
            "threshold_of_rl": max(rl),
            "threshold_of_sft": min(sft),
            "predicted_threshold_of_sft": round(predicted_threshold(top), 3),
            "top_probability_of_terse": top,
            "foretold_right": mean(foretold),
            "foretold": len(foretold),
            "solved_though_worked_is_no_better": sum(
                _solved(cell) and not _better(cell) for cell in everything
            ),
            "better_and_not_solved": sum(
                _better(cell) and not _solved(cell) for cell in everything if cell["share"]
            ),
        },
        summary=(
            f"After RL the likeliest answer is right {SOLVED:.0%} of the time or more from a share of {max(rl):g} "
            f"worked demonstrations on, in all seeds; after SFT alone it is right half of the time from {min(sft):g} "
            f"on. Of {len(foretold)} clear forecasts of the length {mean(foretold):.0%} came true."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """Accuracy of the likeliest answer, and length, by the share of worked demonstrations; where theory has the
    threshold of SFT.
    """
    chart, (left, right) = panels(
        [
            ("share of worked demonstrations", "accuracy"),
            ("share of worked demonstrations", "tokens of a reply"),
        ]
    )
    for number, row in enumerate(figures):
        shares = [cell["share"] for cell in row["cells"]]
        for axes, key in ((left, "accuracy"), (right, "length")):
            for index, (stage, label) in enumerate({"sft": "after SFT", "rl": "after RL"}.items()):
                values = [cell[stage]["greedy"][key] for cell in row["cells"]]
                axes.plot(
                    shares, values, color=f"C{index}", marker="o", markersize=3, linewidth=1.2,
                    label=None if number else label,
                )  # fmt: skip
    predicted = predicted_threshold(mean([cell["top"] for row in figures for cell in row["cells"]]))
    left.axvline(predicted, color=GREY, linestyle="--", linewidth=1.0, label="m / (1 + m)")
    for axes in (left, right):
        axes.set_xscale("symlog", linthresh=0.01)
    return svg(chart)


EXPERIMENT = Experiment(
    name="rl_amplifies",
    claim="RL makes worked answers the rule from a few percent in the demonstrations on, where imitation does not.",
    source="Tsilivis et al. 2025 (arXiv 2510.11495): how reinforcement learning after next-token prediction works",
    prediction=(
        f"The least share from which on RL ends with an accuracy of {SOLVED} (greedy, held out) is at most a third of "
        f"the least share at which SFT alone reaches {HALF}, in each seed; the latter is near m / (1 + m), m the "
        "probability of the likeliest terse answer. No cell is solved in which worked answers were not more accurate "
        "than terse ones before RL. Else: partly."
    ),
    method=(
        "As rl_selects, with a base that has also read worked solutions, each behind a start token. SFT on "
        f"{FINE_TUNING} x 64 demonstrations with AdamW at {TAUGHT.adamw_lr:g}, of which a share of "
        f"{', '.join(f'{share:g}' for share in SHARES)} is worked; then {CONFIG.steps} steps of GRPO at "
        f"{REWARDED.adamw_lr:g} with 20 of warm-up. Before RL, 16 replies to each of 64 problems say whether it will "
        f"lengthen answers. At a share of {VARIED} the rate of SFT, that of RL and the start token are varied apart."
    ),
    run=run,
    judge=rule,
    figure=figure,
)
