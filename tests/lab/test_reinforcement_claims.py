"""What the claims about reinforcement are made of."""

import copy
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.lab import rl_amplifies, rl_discovers, rl_selects
from crawltalk.lab.chains import (
    ALPHABET,
    asked,
    draw,
    drawn_problems,
    exam,
    facts,
    forecast,
    is_worked,
    judge,
    measure,
    results,
    step,
    terse,
    worked,
)
from crawltalk.lab.experiment import Trial
from crawltalk.lab.student import Example, Student
from crawltalk.posttraining.reinforce import Group
from crawltalk.recipe import Machine
from crawltalk.recipe.grpo import Reinforce
from crawltalk.rewards.verdict import correct
from crawltalk.run.stage import Progress

seeds = st.integers(0, 2**32)
quick = settings(deadline=None, max_examples=30)


@pytest.fixture
def trial(tmp_path) -> Trial:
    return Trial(seed=0, out=tmp_path, progress=Progress(), machine=Machine(workers=1, device="cpu"))


@quick
@given(seed=seeds, steps=st.integers(1, 9))
def test_who_makes_no_mistakes_is_right_in_both_ways(seed, steps):
    rng = random.Random(seed)
    chain = draw(rng, steps, "train")
    replies = [worked(chain, rng, 0.0), terse(chain, rng, 0.0)]
    assert [verdict.reward for verdict in judge([asked(chain)] * 2, replies)] == [1.0, 1.0]
    assert [is_worked(reply) for reply in replies] == [True, False]
    assert len(replies[0]) == 6 * steps + 1


def test_demonstrators_are_right_as_often_as_the_experiments_say():
    rng = random.Random(0)

    def share(way, mistakes):
        chains = [draw(rng, rl_selects.STEPS, "train") for _ in range(4000)]
        return sum(way(chain, rng, mistakes)[-1] == asked(chain).answer for chain in chains) / 4000

    assert share(worked, rl_selects.MISTAKES) == pytest.approx(rl_selects.RIGHT, abs=0.02)
    assert share(terse, 1 - rl_selects.RIGHT) == pytest.approx(rl_selects.RIGHT, abs=0.02)
    assert share(worked, rl_selects.MANY_MISTAKES) < 0.25


def test_of_single_steps_only_the_result_is_learned():
    reply = facts(random.Random(0)).reply
    lines = [line for line in reply.split(";") if line]
    learned = [character for character, counts in zip(reply, results(reply), strict=True) if counts]
    assert learned == [line[-1] for line in lines]
    assert all(int(line[-1]) == step(int(line[0]), line[1], int(line[2])) for line in lines)


def test_no_problem_of_the_test_is_trained_on():
    trained = {one.prompt for number in range(20) for one in drawn_problems(2, 32, 0)(number, [])}
    assert trained.isdisjoint(one.prompt for one in exam(2, 400))


def test_a_student_learns_is_reinforced_and_continues_as_if_nothing_had_happened(trial):
    config = Reinforce(steps=2, groups=4, samples=4, max_tokens=16)

    def train() -> tuple[dict, list]:
        student = Student(trial, ALPHABET, layers=1, width=16, mlp=16)
        student.learn("sft", lambda rng: Example(asked(draw(rng, 1, "train")).prompt, "7"), 10, 8)
        course = student.reinforce("rl", drawn_problems(1, 4, 0), judge, config, rl_selects.REWARDED)
        assert course.stopped == ""
        return measure(student, exam(1, 40), 1.0), course.curve("accuracy")

    first = train()
    assert len(first[1]) == 2
    assert train() == first


def test_a_copy_of_a_student_goes_its_own_way(trial):
    student = Student(trial, ALPHABET, layers=1, width=16, mlp=16)
    other = student.copy()
    other.learn("other", lambda rng: Example("1+1?", "2"), 40, 4)
    assert other.answer(["1+1?"])[0].text == "2"
    assert student.answer(["1+1?"])[0].text != "2"
    assert other.follows("1+1?")["2"] > 0.9
    assert sum(student.follows("1+1?").values()) == pytest.approx(1.0, abs=1e-5)


def test_a_forecast_needs_replies_of_both_kinds(trial):
    student = Student(trial, ALPHABET, layers=1, width=16, mlp=16)
    student.learn("sft", lambda rng: Example(asked(draw(rng, 1, "train")).prompt, "7"), 40, 8)
    assert forecast(student, exam(1, 4), 4).reward_longer == 0.0


def test_a_derivation_is_right_only_as_a_whole():
    problem = rl_discovers.asked(3, 3, "+", 4)
    assert (problem.prompt, problem.answer) == ("3#3+4?", "3:7;2:1;1:5;")
    replies = [problem.answer, "3:7;2:1;", "3:7;1:5;", "3:8;2:1;1:5;", "3:7", ""]
    rewards = [one.reward for one in rl_discovers.judge([problem] * 6, replies)]
    assert rewards == [1.0, 0.7, 0.2, 0.0, 0.0, 0.0]
    single = rl_discovers.asked(1, 3, "+", 4)
    assert [one.reward for one in rl_discovers.judge([single] * 2, ["1:7;", "1:7;9:1;"])] == [1.0, 0.2]


def test_demonstrators_count_rightly_from_three_down_and_lose_count_above():
    rng = random.Random(0)
    right = total = 0
    for _ in range(3000):
        lines = rl_discovers.demonstration(rng).reply.split(";")[:-1]
        counts = [int(line[0]) for line in lines]
        for before, after in pairwise(counts):
            assert before > 3 or after == before - 1
            right += before > 3 and after == before - 1
            total += before > 3
    assert right / total == pytest.approx(rl_discovers.PIECE, abs=0.006)


def test_a_level_that_is_mastered_is_followed_by_the_next_and_a_resumed_curriculum_agrees():
    curriculum, history = rl_discovers.Curriculum(0), list[Group]()
    for number in range(4):
        problems = curriculum(number, history)
        assert len(problems) == rl_discovers.CONFIG.groups
        history += [
            Group(step=number, problem=one, replies=[""], lengths=[1], verdicts=[correct()])
            for one in problems
        ]
    assert curriculum.levels == [4, 5, 6]
    assert rl_discovers.Curriculum(0)(4, copy.copy(history)) == curriculum(4, history)


def _cell(share: float, sft: float, rl: float, worked_right: float, pull: float) -> dict:
    sampled = {"accuracy": 0.2, "accuracy_terse": 0.2, "length": 5.0}
    after = {"accuracy": rl, "length": 33.0 if rl > 0.5 else 2.0}
    return {
        "share": share,
        "top": 0.2,
        "sft": {"greedy": {"accuracy": sft}, "sampled": sampled, "accuracy_worked": worked_right},
        "pull": pull,
        "rl": {"greedy": after, "sampled": after},
    }


def test_amplification_needs_a_threshold_far_below_that_of_imitation():
    cells = [_cell(0.0, 0.2, 0.2, 0.9, -3), _cell(0.03, 0.2, 0.99, 0.9, 4), _cell(0.3, 0.9, 0.99, 0.9, 5)]
    judged = rl_amplifies.rule([{"cells": cells}] * 3)
    assert judged.verdict == "confirmed"
    assert (judged.effect["threshold_of_rl"], judged.effect["threshold_of_sft"]) == (0.03, 0.3)
    assert judged.effect["foretold_right"] == 1.0
    assert judged.effect["predicted_threshold_of_sft"] == pytest.approx(0.2 / 1.2, abs=1e-3)
    cells[1] = _cell(
        0.03, 0.2, 0.99, 0.1, 4
    )  # solved though worked answers were no better: another explanation
    assert rl_amplifies.rule([{"cells": cells}]).verdict == "partly"
    cells[1] = _cell(0.03, 0.2, 0.3, 0.9, 4)
    assert rl_amplifies.rule([{"cells": cells}]).verdict == "not at this scale"
