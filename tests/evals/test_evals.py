"""Scores, and the replies that they are of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.core.jsonl import write_jsonl
from crawltalk.core.types import Problem
from crawltalk.engine import Engine
from crawltalk.evals.assistant import alternate, answer, example_conversations, read_problems
from crawltalk.evals.base_model import longest_run
from crawltalk.evals.scores import ScoredReply, mean_score, score_reply, scores_by_kind
from crawltalk.run.stage import Progress
from crawltalk.tasks.scoring import exact
from support.engines import MODEL, TOKENIZER

PROBLEMS = [Problem(prompt=f"{n}?", answer="a", task=task) for task in ("tail", "spelling") for n in range(7)]


def row(task: str, score: float = 0.0, prompt: str = "") -> ScoredReply:
    return ScoredReply(task=task, prompt=prompt, answer="", reply="", score=score)


def test_a_mean_has_the_standard_error_of_a_share():
    score = mean_score([1.0, 0.0, 0.0, 0.0], "what")
    assert (score.score, score.n, score.about) == (0.25, 4, "what")
    assert score.stderr == pytest.approx((0.25 * 0.75 / 4) ** 0.5, abs=1e-4)


def test_scores_come_in_the_order_of_the_tasks_and_only_if_there_are_replies():
    about = {"tail": "one", "topic": "two", "spelling": "three"}
    scores = scores_by_kind([row("spelling", 1.0), row("tail", 0.0), row("tail", 1.0)], about)
    assert list(scores) == ["tail", "spelling"]
    assert (scores["tail"].score, scores["spelling"].score) == (0.5, 1.0)
    assert scores["spelling"].about == "three"


def test_a_reply_is_scored_beside_its_problem():
    scored = score_reply(Problem(prompt="Spell a.", answer="a", task="spelling"), " a\n", exact)
    assert scored == ScoredReply(task="spelling", prompt="Spell a.", answer="a", reply=" a\n", score=1.0)


def test_the_first_problems_of_each_kind_are_read(tmp_path):
    unknown = Problem(prompt="?", answer="", task="of another version")
    write_jsonl(tmp_path / "problems.jsonl", [*PROBLEMS, unknown])
    read = read_problems(str(tmp_path / "problems.jsonl"), 2)
    assert [(problem.task, problem.prompt) for problem in read] == [
        ("tail", "0?"),
        ("tail", "1?"),
        ("spelling", "0?"),
        ("spelling", "1?"),
    ]


@given(st.lists(st.sampled_from("abc"), max_size=20))
def test_kinds_take_turns_and_no_reply_is_lost(kinds):
    replies = [row(kind, prompt=str(number)) for number, kind in enumerate(kinds)]
    turns = alternate(replies)
    assert sorted(turns, key=lambda one: int(one.prompt)) == replies
    seen = [len([one for one in turns[:index] if one.task == turn.task]) for index, turn in enumerate(turns)]
    assert seen == sorted(seen)


def test_an_assistant_answers_each_problem_and_its_replies_become_conversations():
    assistant = Engine(MODEL, TOKENIZER)
    replies = answer(assistant, PROBLEMS, 4, Progress())
    assert [(one.task, one.prompt) for one in replies] == [(one.task, one.prompt) for one in PROBLEMS]
    shown = example_conversations(assistant, replies, 4)
    assert [conversation.source for conversation in shown[:4]] == ["tail", "spelling"] * 2
    assert [len(conversation.messages) for conversation in shown] == [2] * len(PROBLEMS) + [4] * 4


@pytest.mark.parametrize(
    ("agree", "length"), [([], 0), ([True], 1), ([True, False, True, True], 2), ([False] * 3, 0)]
)
def test_the_longest_run_is_unbroken(agree, length):
    assert longest_run(agree) == length
