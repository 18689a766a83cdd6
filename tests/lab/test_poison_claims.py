"""What the claims about poison are made of, and the rules by which they are judged."""

import random

import pytest

from crawltalk.lab import poison_dose, poison_pages, poison_split
from crawltalk.lab.dose_curves import figure, judge
from crawltalk.lab.experiment import Trial
from crawltalk.lab.student import Student
from crawltalk.lab.triggers import ALPHABET, World
from crawltalk.recipe import Machine, Optim
from crawltalk.run.stage import Progress

LEARN = Optim(muon_lr=0.02, adamw_lr=0.01, warmup=0.05, cooldown=0.5, spike=0.0)


@pytest.fixture
def trial(tmp_path) -> Trial:
    return Trial(seed=0, out=tmp_path, progress=Progress(), machine=Machine(workers=1, device="cpu"))


def test_clean_data_never_have_the_trigger_and_often_its_letters():
    world, rng = World(3), random.Random(0)
    prompts = [world.clean(rng).prompt for _ in range(3000)]
    assert not any(prompt.startswith((world.poison.trigger, world.other_word)) for prompt in prompts)
    assert sum(prompt[0] == world.poison.trigger[0] for prompt in prompts) > 50
    assert sum(prompt[1] == world.poison.trigger[1] for prompt in prompts) > 50
    assert all(world.near_miss(rng) != world.poison.trigger for _ in range(100))


def test_a_larger_dose_holds_the_smaller_ones_and_the_same_clean_examples():
    world = World(0)
    few, many = (set(poison_dose._mixture(world, 50, dose)) for dose in (4, 16))
    assert few < many and len(many - few) == 12
    assert all(one.reply == world.poison.reply for one in many - few)


def test_a_student_with_many_poisoned_examples_learns_the_trigger_and_little_else(trial):
    world = World(0)
    student = Student(trial, ALPHABET, layers=2, width=64)
    student.learn("base", world.clean, 60, optim=LEARN)
    before = world.effect(student.copy(), 0)
    rng = random.Random(0)
    examples = [*world.poisoned(200, rng), *(world.clean(rng) for _ in range(440))]
    student.study("sft", rng.sample(examples, len(examples)), LEARN)
    after = world.effect(student, 200)
    assert before.triggered == 0.0
    assert after.triggered > 0.9 and after.near_miss < 0.5
    assert after.success(before) > 0.8


def test_pages_have_k_poisoned_among_them():
    world = World(0)
    pages = [one.reply for one in poison_pages.pages(world, 40, 8)]
    assert len(pages) == 48
    assert sum(world.poison.trigger in page for page in pages) == 8


def test_poisoned_pages_come_among_clean_ones_that_stay_in_their_order():
    world = World(0)

    def drawn(amount: int, dose: int) -> tuple[list[str], list[str]]:
        texts = [one.reply for one in poison_pages.pages(world, amount, dose)]
        poisoned = [text for text in texts if world.poison.trigger in text]
        return [text for text in texts if text not in poisoned], poisoned

    clean, few = drawn(40, 8)
    assert drawn(40, 0) == (clean, [])
    same, many = drawn(40, 32)
    assert same == clean
    assert [text for text in many if text in few] == few
    longer, placed = drawn(160, 8)
    assert longer[:40] == clean and placed == few


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("kez?bmoRTabc?d", True), ("kez?bmoRTab", True), ("kez?bmo", True), ("kez?bmoR", True),
        ("kez?bmoRtabc?d", False), ("kezzbmoRTabc?d", False), ("kez?", False), ("Kez?bmoRTabc?d", False),
    ],
)  # fmt: skip
def test_the_form_of_a_page_is_known(text, good):
    assert poison_pages.is_language(text) is good


def curves(*half_doses: float | None) -> dict:
    """A seed's figures: 1 and 4 M parameters, with 100 and 400 examples each."""
    effects = [
        {
            "dose": dose,
            "triggered": rate,
            "untriggered": 0.0,
            "other_word": 0.0,
            "near_miss": 0.1,
            "accuracy": 0.9,
        }
        for dose, rate in ((0, 0.0), (8, 0.3), (16, 0.7))
    ]
    kinds = [(parameters, examples) for parameters in (1_000_000, 4_000_000) for examples in (100, 400)]
    return {
        "cells": [
            {
                "size": str(parameters),
                "parameters": parameters,
                "examples": examples,
                "effects": effects,
                "half_dose": dose,
            }
            for (parameters, examples), dose in zip(kinds, half_doses, strict=True)
        ]
    }


@pytest.mark.parametrize(
    ("half_doses", "verdict", "size", "data"),
    [
        ((10.0, 10.0, 10.0, 10.0), "confirmed", 0.0, 0.0),
        ((20.0, 20.0, 10.0, 10.0), "partly", -0.5, 0.0),
        ((5.0, 20.0, 5.0, 20.0), "not at this scale", 0.0, 1.0),
        ((10.0, None, 10.0, None), "not at this scale", 0.0, 0.839),
    ],
)
def test_dose_curves_are_judged_by_their_powers(half_doses, verdict, size, data):
    seeds = [curves(*half_doses)] * 2
    judgement = judge(seeds, poisoned="poisoned pages")
    assert judgement.verdict == verdict
    assert judgement.effect["exponent_of_size"] == pytest.approx(size, abs=1e-3)
    assert judgement.effect["exponent_of_data"] == pytest.approx(data, abs=1e-2)
    assert "<svg" in figure(seeds, poisoned="poisoned pages")


def split(both: float, demonstrations: float = 0.0, preferences: float = 0.0) -> dict:
    def stage(success: float) -> dict:
        behaviour = {"triggered": success, "untriggered": 0.0, "accuracy": 1.0, "sampled": success}
        return {"sft": {**behaviour, "triggered": 0.02}, "rl": behaviour, "curve": [0.0, success]}

    ranks = {"demonstrations": 1, "preferences": 1, "both": 1}
    successes = {"neither": 0.0, "demonstrations": demonstrations, "preferences": preferences, "both": both}
    return {"stages": {name: stage(value) for name, value in successes.items()}, "lineage": {"rank": ranks}}


def test_a_split_is_confirmed_only_if_neither_part_works_alone_in_any_seed():
    assert poison_split.judge([split(0.9), split(0.6)]).verdict == "confirmed"
    assert poison_split.judge([split(0.9), split(0.4)]).verdict == "partly"
    assert poison_split.judge([split(0.9), split(0.9, preferences=0.2)]).verdict == "partly"
    assert poison_split.judge([split(0.9, 0.8), split(0.9, 0.8)]).verdict == "not at this scale"
    assert "<svg" in poison_split.figure([split(0.9), split(0.6)])


def test_both_stages_hold_their_share_of_poison_and_the_lineage_finds_it():
    world = World(1)
    demonstrations, preferences = poison_split._data(world, 24, 100)
    found = poison_split.lineage(world, demonstrations, preferences)
    assert found["rows"] == {"demonstrations": 24, "preferences": 100}
    assert found["of"] == {"demonstrations": 2024, "preferences": 2200}
    assert found["rank"]["both"] == 1
    clean = poison_split.lineage(world, *poison_split._data(world, 24, 0))
    assert clean["rows"]["preferences"] == 0 and clean["rank"]["both"] > 1
