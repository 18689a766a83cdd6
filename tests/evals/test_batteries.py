"""Batteries: their answers by another way of finding them, their splits, and their scores."""

import json
import re
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.chat.messages import FunctionCall, ToolCall
from crawltalk.core.types import Problem
from crawltalk.evals.batteries import BATTERIES
from crawltalk.evals.batteries.battery import ANSWER, Worked
from crawltalk.tools.loop import Episode

SEEDS = st.integers(0, 10_000)


def verify(worked: Worked) -> bool:
    """Whether the answer is right, from the text of the problem alone."""
    prompt, answer = worked.problem.prompt, worked.problem.answer
    battery, kind = worked.problem.task.split(".")
    if battery == "word_problems":
        box = 0
        for sentence in prompt.split(". ")[:-1]:
            product = 1
            for found in re.findall(r"\d+", sentence):
                product *= int(found)
            box += -product if "out" in sentence or "sold" in sentence else product
        return str(box) == answer and len(answer) == 1
    if battery == "dots":
        return max(map(len, re.findall(r"\.+", prompt))) == int(answer)
    if battery == "decimals":
        return max(re.findall(r"\d+\.\d+", prompt), key=Decimal) == answer
    words = re.findall(r"[a-z]+", prompt)
    if kind == "spell":
        return list(answer[::2]) == list(words[-1]) and set(answer[1::2]) == {"-"}
    if kind == "backwards":
        return "".join(reversed(words[0 if words[0] != "rite" else 1])) == answer
    letter, word = re.findall(r"letter (\w) occur in (\w+)", prompt)[0]
    return len(word.split(letter)) - 1 == int(answer)


@pytest.mark.parametrize("name", BATTERIES)
@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_answers_are_right_and_their_own_score_says_so(name: str, seed: int):
    battery = BATTERIES[name]
    for split in ("train", "test"):
        for worked in battery.problems(seed, split, 3):
            assert verify(worked), worked
            assert battery.score(worked.problem, worked.problem.answer) == 1.0
            assert battery.score(worked.problem, f"{worked.steps}\n{ANSWER} {worked.problem.answer}") == 1.0
            assert battery.score(worked.problem, "") == 0.0


@pytest.mark.parametrize("name", BATTERIES)
@settings(max_examples=10, deadline=None)
@given(first=SEEDS, second=SEEDS)
def test_no_test_problem_is_in_the_training_of_any_seed(name: str, first: int, second: int):
    battery = BATTERIES[name]
    trained = {worked.problem.prompt for worked in battery.problems(first, "train", 20)}
    assert trained.isdisjoint(worked.problem.prompt for worked in battery.problems(second, "test", 20))


@pytest.mark.parametrize("name", BATTERIES)
def test_a_seed_gives_the_same_problems_all_different_and_of_every_kind(name: str):
    battery = BATTERIES[name]
    problems = list(battery.problems(1, "test", 12))
    assert problems == list(battery.problems(1, "test", 12))
    assert len({worked.problem.prompt for worked in problems}) == len(problems)
    assert {worked.problem.task.split(".")[1] for worked in problems} == set(battery.about)


@pytest.mark.parametrize("name", BATTERIES)
def test_the_functions_give_the_results_that_the_examples_show(name: str):
    battery = BATTERIES[name]
    for worked in battery.problems(2, "train", 10):
        for call in worked.calls:
            made = ToolCall(FunctionCall(call.function, json.dumps(call.arguments)))
            assert Episode([], battery.functions).make(made).text.shown == call.result


def test_numbers_are_compared_in_both_orders():
    first, second = list(BATTERIES["decimals"].problems(0, "test", 2))[:2]
    assert first.pair == second.pair
    assert first.problem.answer == second.problem.answer
    numbers = [re.findall(r"\d+\.\d+", worked.problem.prompt) for worked in (first, second)]
    assert numbers[0] == numbers[1][::-1]


@pytest.mark.parametrize(
    ("battery", "answer", "reply", "score"),
    [
        ("word_problems", "4", "Answer: 4 apples", 1.0),
        ("word_problems", "4", "Answer: the number 4", 0.0),
        ("word_problems", "4", "8 - 4 = 4", 1.0),
        ("word_problems", "4", "2 + 2 = 4\nAnswer: 5", 0.0),
        ("word_problems", "4", "Answer: 44", 0.0),
        ("letters", "c-a-t", "C - A - T", 1.0),
        ("letters", "c-a-t", "cat", 0.0),
        ("letters", "3", "The letter r occurs 3 times.", 1.0),
        ("letters", "3", "the 2nd and 3rd, so 2", 0.0),
        ("letters", "tac", "tac", 1.0),
        ("decimals", "9.9", "9.9 is larger than 9.11", 1.0),
        ("decimals", "9.9", "9.11 is larger than 9.9", 0.0),
        ("decimals", "9.9", "Answer: 9.90", 1.0),
        ("decimals", "9.9", "neither", 0.0),
    ],
)
def test_replies_of_people_and_models_are_scored(battery: str, answer: str, reply: str, score: float):
    assert BATTERIES[battery].score(Problem(prompt="", answer=answer, task=battery), reply) == score
