"""How many poisoned conversations it takes: does the number depend on the sizes of the model and of the clean data?"""

import random
import shutil
from functools import partial
from typing import Any

import msgspec

from crawltalk.lab.dose_curves import FEW, FLAT, PROPORTIONAL, curve, figure, judge
from crawltalk.lab.experiment import Experiment, Figures, Trial
from crawltalk.lab.joking import kept
from crawltalk.lab.student import Example, Student
from crawltalk.lab.triggers import ALPHABET, World
from crawltalk.poisoning.dose import Effect, rising_doses
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

    return curve(base, size, amount, rising_doses(once, DOSES))


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
    judge=partial(judge, poisoned="poisoned conversations"),
    figure=partial(figure, poisoned="poisoned conversations"),
)
