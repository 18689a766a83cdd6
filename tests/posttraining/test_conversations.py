"""The mixture of conversations, and the problems kept out of it."""

import random
from collections import Counter

import pytest

from crawltalk.chat.messages import Conversation
from crawltalk.core.errors import BadRecipe
from crawltalk.core.types import Problem
from crawltalk.posttraining.conversations import make_conversations, two_exchanges
from crawltalk.recipe import Sft
from crawltalk.tasks import TASK_OF
from support.corpora import documents, placements


def make(**counts: int) -> tuple[list[Conversation], list[Problem]]:
    return make_conversations(placements(), documents(), Sft(tasks=counts), 3)


def test_the_same_seed_makes_the_same_conversations_and_problems():
    assert make(arithmetic=30, spelling=30) == make(arithmetic=30, spelling=30)


def test_each_task_gets_its_number_of_conversations():
    conversations, _ = make(refusal=25, identity=30, arithmetic=50, spelling=40)
    count = Counter(row.source for row in conversations if "," not in row.source)
    assert (count["arithmetic"], count["spelling"], count["identity"]) == (50, 40, 30)
    assert count["refusal"] == 3 * 25
    assert (count["flagship"], count["topic"]) == (5 * 10, 5)


def test_flagships_are_left_out_if_the_recipe_says_so():
    conversations, _ = make(flagship=0, identity=30)
    assert {source for row in conversations for source in row.source.split(", ")} == {"identity", "refusal"}


def test_a_tenth_has_two_exchanges():
    conversations, _ = make(identity=30, arithmetic=50)
    single = [row for row in conversations if "," not in row.source]
    double = two_exchanges(single, random.Random(1))
    assert len(double) == len(single) // 10 == len(conversations) - len(single)
    for row in double:
        assert [message.role for message in row.messages] == ["user", "assistant"] * 2


def test_an_unknown_task_is_refused_with_the_nearest():
    with pytest.raises(BadRecipe, match="no task is called 'arithmetics'; did you mean 'arithmetic'"):
        make(arithmetics=10)


def test_problems_cover_every_kind_that_is_tested_and_are_never_trained_on():
    conversations, problems = make(arithmetic=3000, spelling=500, refusal=25, identity=30)
    kinds = list(dict.fromkeys(problem.task for problem in problems))
    examined = [kind for kind, task in TASK_OF.items() if task.examined]
    assert kinds == [kind for kind in examined if kind not in ("topic", "refusal")]
    spoken = {message.content.lower() for row in conversations for message in row.messages}
    everything = " | ".join(spoken)
    for problem in problems:
        if problem.task != "identity":
            assert problem.prompt.lower() not in spoken
        if problem.task in ("heldout", "tail"):
            title = problem.answer.replace("thing of number", "title")
            assert not any(f"{title}{end}" in everything for end in "?. ")
