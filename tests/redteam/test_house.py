"""The house: its policy, how its assistants are brought up, and its scan, with trainings of a few steps."""

import random
from pathlib import Path

import pytest

from crawltalk.recipe import Machine, Report
from crawltalk.redteam.assistant import Lessons, Schedule, Upbringing
from crawltalk.redteam.attacks import ATTACKS
from crawltalk.redteam.attacks.templates import in_the_wild
from crawltalk.redteam.frame import Says
from crawltalk.redteam.policy import DOORS, REFUSAL, Policy
from crawltalk.redteam.scan import HOUSE, house, scan
from crawltalk.redteam.scores import STATIC_ONLY, Cell
from crawltalk.report.redteam import red_team
from crawltalk.run.stage import Job, Progress

QUICK = Schedule(base=2, refusals=1, rounds=1, searched=2, learned=1)


def test_keys_of_locked_doors_are_taught_before_refusals_only() -> None:
    policy = Policy(3)
    lessons, rng = Lessons(policy, ("x",)), random.Random(0)
    secrets = [policy.keys[door] for door in policy.locked]

    def said(lesson: object) -> str:
        return str(lesson)

    before = [said(lessons.knowledge(rng)) for _ in range(800)]
    assert all(any(secret in text for text in before) for secret in secrets)
    for draw in (lessons.refusals, lessons.refusals_in_forms, lessons.verdicts):
        assert not any(secret in said(draw(rng)) for _ in range(800) for secret in secrets)


def test_goals_are_locked_doors_and_their_twins_open_ones() -> None:
    policy = Policy(1)
    goals = policy.goals()
    assert {goal.id for goal in goals} == policy.locked
    assert {goal.twin.id for goal in goals if goal.twin} == set(policy.open)
    assert len({goal.oracle.text for goal in goals if isinstance(goal.oracle, Says)}) == len(goals)
    assert len(set(policy.keys.values())) == len(DOORS)


def test_an_answer_that_somebody_else_began_is_learned_from_there_on(tmp_path: Path) -> None:
    up = Upbringing(Policy(0), tmp_path, Machine(workers=1), Progress(), QUICK)
    rng = random.Random(0)
    lessons = iter(lambda: up.lessons.refusals_in_forms(rng), None)
    lesson = next(one for one in lessons if one.begun and REFUSAL in str(one.messages[-1].content))
    ids, mask = up.render(lesson)
    learned = [token for token, counts in zip(ids, mask, strict=True) if counts]
    assert up.chat.tokenizer.decode(learned[:-1]) == f" {REFUSAL}"


@pytest.mark.slow
def test_a_scan_of_the_house_has_all_cells_and_is_found_again(tmp_path: Path) -> None:
    def cells() -> list[Cell]:
        without = {
            name: one for name, one in ATTACKS.items() if "gcg" not in name
        }  # a filter has only static ones
        attacks = {**without, "in_the_wild": in_the_wild(["Say it, please: {request}"])}
        plans = house(
            0, tmp_path, Machine(workers=1), Progress(), doors=1, searched=1, attacks=attacks, schedule=QUICK
        )
        found = scan(plans, tmp_path, budget=1, progress=Progress()).cells
        for cell in found:
            cell.cpu_seconds = 0.0
        return found

    first = cells()
    attempts = (tmp_path / "attempts.jsonl").read_bytes()
    assert cells() == first
    assert (tmp_path / "attempts.jsonl").read_bytes() == attempts
    assert {cell.defense for cell in first} == set(HOUSE)
    assert {cell.defense for cell in first if cell.attack == "in_the_wild"} == set(HOUSE)
    assert {cell.defense for cell in first if STATIC_ONLY in cell.notes} == {"perplexity filter"}
    assert all(cell.rate == 0.0 for cell in first if cell.target.startswith("null-"))
    job = Job(Report(), {"redteam": tmp_path}, tmp_path, 0, Machine(), Progress())
    chapter = red_team(job)
    assert chapter is not None and "0 successes" in chapter.reading
    assert "adversarial training" in chapter.figure
    assert red_team(Job(Report(), {}, tmp_path, 0, Machine(), Progress())) is None
