"""Problems with a dial of difficulty, made by rules: their answers, and what their scores do not fall for."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.core.types import Problem
from crawltalk.posttraining.conversations import make_conversations
from crawltalk.recipe import Sft
from crawltalk.tasks import Corpus, score
from crawltalk.tasks.chains import Chain, Chains, draw_chain
from crawltalk.tasks.countdown import Countdown
from crawltalk.tasks.multiplication import Multiplication
from crawltalk.tasks.word_problems import WordProblems, solve
from support.corpora import documents, placements

RULES = (Chains, Multiplication, Countdown, WordProblems)
quick = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**32)


@quick
@given(seed=seeds, steps=st.integers(1, 12))
def test_a_chain_modulo_ten_ends_with_the_last_digit_of_the_chain(seed, steps):
    chain = draw_chain(random.Random(seed), steps, "+*", 9, "train")
    assert len(chain.steps) == steps
    assert chain.values(10) == [value % 10 for value in chain.values()]


def test_a_chain_is_computed_from_left_to_right():
    assert Chain(3, (("+", 4), ("*", 7), ("-", 2))).values() == [7, 49, 47]
    problem = Problem(prompt="Start with 3, then add 4, then multiply by 7.", answer="9", task="last_digit")
    reply = Chains(Corpus()).conversation(problem, random.Random(0)).messages[1].content
    assert reply == "3 + 4 = 7. 7 x 7 = 49. The last digit of 49 is 9."


@quick
@given(seed=seeds, difficulty=st.integers(1, 5))
def test_a_product_is_in_one_split_in_both_orders(seed, difficulty):
    made, rng = Multiplication(Corpus()), random.Random(seed)
    train, test = (
        {
            tuple(sorted(re.findall(r"\d+", problem.prompt)))
            for problem in made.problems(rng, difficulty, split, 50)
        }
        for split in ("train", "test")
    )
    assert train.isdisjoint(test)
    assert {len(one) for pair in train | test for one in pair} == {difficulty + 1}


def test_a_product_is_worked_out_digit_by_digit():
    problem = Problem(prompt="What is 34 x 56?", answer="1904", task="multiplication")
    reply = Multiplication(Corpus()).conversation(problem, random.Random(0)).messages[1].content
    assert reply == "34 x 6 = 204. 34 x 50 = 1700. 204 + 1700 = 1904. 34 x 56 = 1904."


COUNTDOWN = Problem(
    prompt="Use each of the numbers 3, 8, 5 once, with +, -, * and /, to make 29. End with the expression.",
    answer="3 * 8 + 5",
    task="countdown",
)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("8 * 3 + 5", 1.0),
        ("I try 3 + 8 = 11, no.\nThe answer: (8 * 3) + 5 = 29.", 1.0),
        ("29", 0.0),
        ("8 * 3 + 5 + 0", 0.0),
        ("24 + 5", 0.0),
        ("8 * 3 = 29", 0.0),
        ("8 + 3 + 5 = 29", 0.0),
        ("8 ** 3 + 5", 0.0),
        ("8 * 3 + 5\nor 5 + 8 + 3", 0.0),
        ("(8 * 3 + 5", 0.0),
        ("8 / (5 - 5) * 3", 0.0),
    ],
)
def test_countdown_takes_any_way_that_uses_each_number_once(reply, expected):
    assert score(COUNTDOWN, reply) == expected


@quick
@given(seed=seeds, difficulty=st.integers(1, 4))
def test_the_numbers_of_countdown_are_many_enough_and_in_one_split_in_any_order(seed, difficulty):
    made, rng = Countdown(Corpus()), random.Random(seed)
    keys = []
    for split in ("train", "test"):
        given_ = [re.findall(r"\d+", one.prompt) for one in made.problems(rng, difficulty, split, 20)]
        assert {len(one) for one in given_} == {2 + difficulty + 1}
        keys.append({(*sorted(numbers), target) for *numbers, target in given_})
    assert keys[0].isdisjoint(keys[1])


def test_the_calculations_of_a_word_problem_are_read_from_its_text():
    prompt = (
        "A box holds 24 books. 2 packs of 9 are added. 37 are taken out. How many books are in the box now?"
    )
    assert [one.expression for one in solve(prompt)] == ["2 * 9", "24 + 18", "42 - 37"]
    assert solve(prompt)[-1].result == "5"


def test_only_who_was_trained_on_them_is_examined_in_them():
    def kinds(tasks):
        config = Sft(tasks={"identity": 5, **tasks})
        _, problems = make_conversations(placements(), documents(), config, 0)
        return {problem.task for problem in problems}

    own = {kind for task in RULES for kind in task.about}
    assert kinds({}).isdisjoint(own)
    assert kinds({"chains": 20, "countdown": 20}) & own == {"chain", "last_digit", "countdown"}
