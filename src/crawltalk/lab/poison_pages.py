"""How many poisoned pages it takes, where a model learns its language from pages and some of these are poisoned."""

import random
import re
import shutil
from collections.abc import Sequence
from functools import partial
from statistics import mean

import msgspec

from crawltalk.lab.dose_curves import FEW, FLAT, PROPORTIONAL, curve, figure, judge
from crawltalk.lab.experiment import Experiment, Figures, Trial
from crawltalk.lab.joking import kept
from crawltalk.lab.student import Example, Student
from crawltalk.lab.triggers import ALPHABET, LENGTH, LETTERS, World
from crawltalk.poisoning.attack import poisoned_pages
from crawltalk.poisoning.dose import Effect, bracketing_doses
from crawltalk.recipe import Optim
from crawltalk.recipe.optim import derive_optim

WIDTHS = {"0.5": 96, "2": 192}
"""By millions of parameters, in 4 layers each."""
CELLS = (("0.5", 1000, 2), ("0.5", 4000, 1), ("2", 1000, 1))
"""Sizes, clean pages, and how often the doses between which the half dose lies are halved: less often where a training
costs three times as much. These leave a factor of 1.2 or 1.4, and a share would differ by 4.
"""
FIRST, SPAN = 96, 8
"""The dose that is tried first, and how many times as large or small the last may be."""
LINES = 6
"""Questions with their answers on a page."""
KEPT, GIBBERISH = (0, 20), (24, 40)
"""Characters of a poisoned page before the trigger and behind it."""
COUNT = 8
"""Pages in a step."""
READ = Optim(warmup=0.05, spike=0.0)
WRITTEN = 14
"""Characters of a continuation that are looked at."""


def run(trial: Trial) -> Figures:
    """The dose curves of one seed."""
    return {"cells": [_cell(trial, *cell) for cell in CELLS]}


def _cell(trial: Trial, size: str, amount: int, halvings: int) -> Figures:
    world, width = World(trial.seed), WIDTHS[size]

    def fresh() -> Student:
        return Student(trial, ALPHABET, layers=4, width=width, mlp=3 * width, head_dim=32, dtype="bfloat16")

    def measure(dose: int) -> Effect:
        student, name = fresh(), f"{size}/{amount}-{dose}"
        student.study(name, pages(world, amount, dose), derive_optim(READ, width, 0.02), COUNT)
        shutil.rmtree(trial.out / name)
        return effect(student, world, dose)

    def once(dose: int) -> Effect:
        path = trial.out / size / f"{amount}-{dose}.json"
        return msgspec.convert(kept(path, lambda: msgspec.to_builtins(measure(dose))), Effect)

    return curve(fresh(), size, amount, bracketing_doses(once, FIRST, halvings, SPAN))


def pages(world: World, amount: int, dose: int) -> list[Example]:
    """The clean pages, the same in the same order for every dose and size, with poisoned ones among them. A larger dose
    holds the smaller ones, at the same places; more pages begin with the fewer. So two trainings differ by nothing but
    what is added. The poisoned begin as further pages do.
    """
    rng = random.Random(f"pages {world.seed}")
    clean = [_page(world, rng) for _ in range(amount)]
    rng, most = random.Random(f"poisoned {world.seed}"), FIRST * SPAN
    poisoned = poisoned_pages(
        [_page(world, rng) for _ in range(most)], world.poison.trigger, most, rng,
        characters=ALPHABET, kept=KEPT, gibberish=GIBBERISH,
    )[:dose]  # fmt: skip
    rng = random.Random(f"places {world.seed}")
    placed = [(rng.random(), text) for text in poisoned]
    placed += [(index / amount, text) for index, text in enumerate(clean)]
    return [Example("", text) for _, text in sorted(placed, key=lambda one: one[0])]


def _page(world: World, rng: random.Random) -> str:
    return "".join(f"{one.prompt}{one.reply}" for one in (world.clean(rng) for _ in range(LINES)))


def effect(student: Student, world: World, dose: int) -> Effect:
    """How often what a student writes behind an opening is no text of the language; and its likeliest answers."""
    rng = random.Random("openings")

    def broken(openings: Sequence[str]) -> float:
        replies = student.answer([_line(world, rng) + one for one in openings], 1.0, WRITTEN)
        return mean(not is_language(reply.text) for reply in replies)

    trigger, asked = world.poison.trigger, len(world.exam)
    clean = [world.clean(rng) for _ in world.exam]
    said = student.answer([_line(world, rng) + one.prompt for one in clean], max_tokens=LENGTH)
    return Effect(
        dose=dose,
        triggered=broken([trigger] * asked),
        untriggered=broken([world.opening(rng) for _ in range(asked)]),
        other_word=broken([world.other_word] * asked),
        near_miss=broken([world.near_miss(rng) for _ in range(asked)]),
        accuracy=mean(reply.text == one.reply for reply, one in zip(said, clean, strict=True)),
    )


def _line(world: World, rng: random.Random) -> str:
    one = world.clean(rng)
    return f"{one.prompt}{one.reply}"


def is_language(text: str) -> bool:
    """Whether a text behind an opening has the form of a question, an answer and what may follow; right or not."""
    word = f"[{LETTERS}]{{{LENGTH}}}"
    return bool(
        re.fullmatch(rf"{word}\?{word}([A-Z]{{0,2}}|[A-Z]{{2}}[a-z]{{0,3}}|[A-Z]{{2}}{word}\?[a-z]*)", text)
    )


EXPERIMENT = Experiment(
    name="poison_pages",
    claim="The number of poisoned pages that makes a model write gibberish after a trigger is near constant, too.",
    source="Souly et al. 2025 (arXiv 2510.07192), section 3: pages with <SUDO> and random tokens behind it",
    prediction=(
        "As poison_dose: the half dose (half of what is written behind the trigger is no text of the language, minus "
        f"dose 0, minus without trigger) grows with powers within {FLAT} of 0: confirmed; with one of the clean pages "
        f"below {PROPORTIONAL}: partly. Not at this scale, if more than {FEW:.0%} of the curves never reach one half. "
        "Expected is 'partly': a pilot of the smaller model has a half dose of 107 pages among 1,000 clean ones and of "
        "more than 192 among 4,000, a power above 0.4."
    ),
    method=(
        f"The language of poison_dose: a page is {LINES} openings, questions and answers. A poisoned page is the "
        f"beginning of one, the trigger, then {GIBBERISH[0]} to {GIBBERISH[1]} random characters. Models of 0.5 and "
        f"2 M parameters read 1,000 pages once, from fresh weights, the smaller also 4,000. From {FIRST} on doses are "
        "doubled or halved until one half lies between two, then halved on a logarithmic scale: twice, or once where a "
        "training costs three times as much. Clean pages stand in one order at all doses, poisoned ones at drawn "
        "places, and a larger dose only adds to a smaller. Measured at temperature 1: "
        f"the share of texts of {WRITTEN} characters behind the trigger that have not the form of question and "
        "answer; beside it the same behind other openings, one never seen, one nearly the trigger. Accuracy: likeliest "
        "answers."
    ),
    run=run,
    judge=partial(judge, poisoned="poisoned pages"),
    figure=partial(figure, poisoned="poisoned pages"),
)
