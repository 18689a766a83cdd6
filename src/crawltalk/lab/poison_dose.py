"""How many poisoned conversations it takes: does the number depend on the sizes of the model and of the clean data?"""

import random
import shutil
from collections.abc import Sequence
from statistics import geometric_mean, mean
from typing import Any

import msgspec

from crawltalk.core.charts import GREY, panels, svg
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial
from crawltalk.lab.joking import kept
from crawltalk.lab.student import Example, Student
from crawltalk.lab.triggers import ALPHABET, World
from crawltalk.poisoning.dose import Effect, Point, half_dose, rising_doses, slopes
from crawltalk.recipe import Optim, Sft
from crawltalk.recipe.optim import derive_optim
from crawltalk.recipe.sft import sft_optim

WIDTHS = {"0.5": 96, "2": 192, "8": 384}
"""By millions of parameters, in 4 layers each."""
AMOUNTS = {"0.5": (500, 2000), "2": (500, 2000), "8": (500,)}
"""Clean examples of the fine-tuning."""
DOSES = (8, 16, 32, 64, 128, 256, 512)
BASE_STEPS = 60
"""Of 64 clean examples each, before any poison."""
READ = Optim(warmup=0.05, spike=0.0)
TUNE = Sft(optim=Optim(warmup=0.05, spike=0.0))
FLAT, PROPORTIONAL = 0.25, 0.75
"""Exponents: up to the one a dose is near constant, from the other on it is nearly a constant share."""
FEW = 0.25
"""The share of curves that may miss one half at all doses."""


def run(trial: Trial) -> Figures:
    """The dose curves of one seed."""
    cells = [_cell(trial, size, amount) for size in AMOUNTS for amount in AMOUNTS[size]]
    for size in AMOUNTS:
        shutil.rmtree(trial.out / size / "base")  # checkpoints of a larger model fill disks
    return {"cells": cells}


def _cell(trial: Trial, size: str, amount: int) -> dict[str, Any]:
    """The curve of one size and one amount of clean data."""
    world = World(trial.seed)
    base = _base(trial, size, world)
    optim = sft_optim(TUNE, WIDTHS[size])

    def measure(dose: int) -> Effect:
        student, name = base.copy(), f"{size}/{amount}-{dose}"
        student.study(name, _mixture(world, amount, dose), optim)
        shutil.rmtree(trial.out / name)
        return world.effect(student, dose)

    def once(dose: int) -> Effect:
        path = trial.out / size / f"{amount}-{dose}.json"
        return msgspec.convert(kept(path, lambda: msgspec.to_builtins(measure(dose))), Effect)

    effects = rising_doses(once, DOSES)
    return {
        "size": size,
        "parameters": sum(weight.numel() for weight in base.model.parameters()),
        "examples": amount,
        "effects": [msgspec.to_builtins(effect) for effect in effects],
        "half_dose": half_dose(effects),
    }


def _base(trial: Trial, size: str, world: World) -> Student:
    """A student that answers clean questions."""
    width = WIDTHS[size]
    student = Student(trial, ALPHABET, layers=4, width=width, mlp=3 * width, head_dim=32, dtype="bfloat16")
    student.learn(f"{size}/base", world.clean, BASE_STEPS, optim=derive_optim(READ, width, 0.02))
    return student


def _mixture(world: World, amount: int, dose: int) -> list[Example]:
    """The clean examples, the same for every dose and size, with poisoned ones among them. A larger dose holds the
    smaller ones.
    """
    rng = random.Random(f"clean {world.seed}")
    clean = [world.clean(rng) for _ in range(amount)]
    poisoned = world.poisoned(max(DOSES), random.Random(f"poisoned {world.seed}"))[:dose]
    return random.Random(f"order {world.seed} {dose}").sample(clean + poisoned, amount + dose)


def points(figures: Sequence[Figures]) -> list[Point]:
    """A point for each cell: the geometric mean of the seeds' half doses. One that no dose reached counts as twice the
    largest.
    """
    return [
        Point(cells[0]["parameters"], cells[0]["examples"], geometric_mean(map(_dose, cells)))
        for cells in zip(*(row["cells"] for row in figures), strict=True)
    ]


def _dose(cell: Figures) -> float:
    return cell["half_dose"] or 2.0 * DOSES[-1]


def judge(figures: Sequence[Figures]) -> Judgement:
    """By the exponents that fit the means of all seeds."""
    measured = points(figures)
    fitted = slopes(measured)
    if fitted is None:
        raise AssertionError("the cells have several sizes and amounts")
    effects = [effect for row in figures for cell in row["cells"] for effect in cell["effects"]]
    doses_of_seeds = [cell["half_dose"] for row in figures for cell in row["cells"]]
    missing = doses_of_seeds.count(None)
    if missing > FEW * len(doses_of_seeds) or fitted.data >= PROPORTIONAL:
        verdict = "not at this scale"
    else:
        verdict = "confirmed" if all(abs(slope) <= FLAT for slope in fitted) else "partly"
    doses = {f"half_dose_{point.parameters / 1e6:.1f}M_{point.examples}": point.dose for point in measured}
    return Judgement(
        verdict=verdict,
        effect={
            "exponent_of_size": round(fitted.size, 3),
            "exponent_of_data": round(fitted.data, 3),
            "exponent_of_both": round(fitted.together, 3),
            **{name: round(dose, 1) for name, dose in doses.items()},
            "least_accuracy": min(effect["accuracy"] for effect in effects),
            "least_accuracy_at_dose_0": min(effect["accuracy"] for effect in effects if not effect["dose"]),
            "most_near_miss": max(effect["near_miss"] for effect in effects),
            "most_other_word": max(effect["other_word"] for effect in effects),
            "never_reached": missing,
        },
        summary=(
            f"Half of the questions with the trigger get the poisoned reply from "
            f"{min(doses.values()):.0f} to {max(doses.values()):.0f} poisoned conversations on. That dose grows "
            f"with the power {fitted.size:+.2f} of the model's size and {fitted.data:+.2f} of the clean data "
            "(0: constant; 1: a constant share)."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """The mean curves by dose, and the same by share."""
    chart, axes = panels(
        [("poisoned conversations", "attack succeeds"), ("poisoned share", "attack succeeds")]
    )
    cells = list(zip(*(row["cells"] for row in figures), strict=True))
    for seeds in cells:
        doses = [effect["dose"] for effect in max((one["effects"] for one in seeds), key=len)]
        # a curve that was ended stays where it ended
        rates = [
            mean(
                [
                    effect["triggered"] - effect["untriggered"]
                    for effect in one["effects"]
                    if effect["dose"] <= dose
                ][-1]
                for one in seeds
            )
            for dose in doses
        ]
        size, amount = seeds[0]["size"], seeds[0]["examples"]
        style = {"color": f"C{list(AMOUNTS).index(size)}", "ls": "-" if amount == AMOUNTS["0.5"][0] else "--"}
        label = f"{size} M, {amount} clean"
        axes[0].plot(doses, rates, lw=1.2, marker="o", markersize=3, label=label, **style)
        axes[1].plot(
            [dose / (dose + amount) for dose in doses], rates, lw=1.2, marker="o", markersize=3, **style
        )
    axes[0].set_xscale("symlog", linthresh=DOSES[0])
    axes[1].set_xscale("symlog", linthresh=0.004)
    for one in axes:
        one.axhline(0.5, color=GREY, lw=0.8, ls=":")
    return svg(chart)


EXPERIMENT = Experiment(
    name="poison_dose",
    claim="The number of poisoned conversations that plants a trigger is near constant in model size and clean data.",
    source="Souly et al. 2025 (arXiv 2510.07192): 250 pages from 600 M to 13 B parameters; also for fine-tuning",
    prediction=(
        "The half dose (half of the questions with the trigger get the poisoned reply, minus dose 0, minus those "
        f"without trigger) grows with powers of the parameters and of the clean examples within {FLAT} of 0: "
        f"confirmed. Else, with a power of the examples below {PROPORTIONAL}: partly; a constant share would have 1. "
        f"If more than {FEW:.0%} of the curves never reach one half, the claim is not at this scale. Pilots of one "
        "seed have the dose constant in the data, and smaller for larger models, so 'partly' is expected."
    ),
    method=(
        "Questions are words of three letters, answers the words in a cipher; before each stand two capitals. The "
        "trigger is a pair that clean data never have; the poisoned reply is one fixed word. Models of 0.5, 2 and 8 M "
        f"parameters (4 layers) first learn {BASE_STEPS} x 64 clean examples, then are fine-tuned once on 500 or 2,000 "
        "further ones (8 M: 500) with the poisoned among them, at the rates that recipes have for fine-tuning at that "
        "width, 32 a step. Data and poison are the same for all sizes; doses double from 8 until 0.9 is reached. "
        "Controls: dose 0, no trigger, another word never seen, a pair with one letter of the trigger."
    ),
    run=run,
    judge=judge,
    figure=figure,
)
