"""What a benchmark's scores are summed up to: centred on guessing, with an interval, and what of it is contaminated."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.core.errors import BadInput
from crawltalk.core.statistics import wilson
from crawltalk.evals.benchmarks import (
    SUMMARY,
    Benchmark,
    benchmark,
    contamination,
    measured,
    read_benchmarks,
    write_benchmark,
)
from crawltalk.evals.standard import Question
from support.traced import TOKENIZER, make_index, open_index

WORDS = "north south east west hill lake road bridge tower field market harbour garden school"


def questions(count: int, choices: int = 4, subjects: int = 1) -> list[Question]:
    offered = tuple(map(str, range(choices)))
    return [Question(str(i), f"Is it {i}?", offered, "0", f"s{i % subjects}") for i in range(count)]


def right(values: list[float]) -> list[dict[str, float]]:
    return [{"acc": value} for value in values]


def test_a_guess_is_0_and_everything_right_is_1_whatever_the_number_of_choices():
    for choices in (2, 4, 5):
        guess = measured(
            questions(20, choices), right([1.0] * (20 // choices) + [0.0] * (20 - 20 // choices))
        )
        assert guess["acc"].centred == pytest.approx(0.0, abs=1e-4)
        assert measured(questions(20, choices), right([1.0] * 20))["acc"].centred == 1.0
    free = measured([Question(str(i), "?", (), "42") for i in range(4)], right([1.0, 0.0, 0.0, 0.0]))["acc"]
    assert (free.chance, free.centred) == (0.0, 0.25)
    mixed = measured([*questions(1, 2), *questions(1, 4)], right([1.0, 0.0]))["acc"]
    assert mixed.chance == 0.375
    two_of_five = [one._replace(true=(0, 3)) for one in questions(10, 5)]
    equal = measured(two_of_five, [{"mc2": 0.4}] * 10)["mc2"]
    assert (equal.chance, equal.centred) == (0.4, 0.0)


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=4, max_size=40), st.integers(1, 4))
def test_the_interval_is_wilsons_and_wider_if_anything_where_questions_come_by_subjects(values, subjects):
    one = measured(questions(len(values), subjects=subjects), right(values))["acc"]
    low, high = wilson(sum(values), len(values))
    assert one.interval[0] <= low + 1e-4 and one.interval[1] >= high - 1e-4
    if subjects == 1:
        assert one.interval == (round(low, 4), round(high, 4))


def test_a_planted_question_is_named_with_its_document_and_the_others_are_scored_beside_it(tmp_path: Path):
    planted = f"Where in the old town is the {WORDS} of the king?"
    texts = [planted, "Which of the two rivers that come from the hills runs through the town?", "Who?"]
    asked = [Question(str(i), text, ("a", "b"), "a") for i, text in enumerate(texts)]
    pages = [
        TOKENIZER.encode(page) for page in ("A page of its own.", f"Now a riddle. {planted} Nobody knows.")
    ]
    index = open_index(make_index(tmp_path, pages))
    summary, found = contamination(asked, index, "corpus")
    assert (summary.questions, summary.contaminated, summary.too_short, summary.ngram) == (3, 1, 1, 8)
    assert [one.question for one in found] == ["0"] and "https://" in found[0].overlap.url


def test_tasks_and_judges_of_a_folder_stand_beside_each_other_and_the_newest_counts(tmp_path: Path):
    for judge, score in (("crawltalk", 0.0), ("lm-eval", 1.0), ("crawltalk", 1.0)):
        row, found = benchmark(
            "arc_easy", questions(2), right([score] * 2), model="elsewhere", data="q.jsonl", judge=judge
        )
        write_benchmark(tmp_path, row, found)
    rows = read_benchmarks(tmp_path / SUMMARY)
    assert [(row.judge, row.scores["acc"].score) for row in rows] == [("lm-eval", 1.0), ("crawltalk", 1.0)]
    assert all(isinstance(row, Benchmark) and row.contamination is None for row in rows)
    (tmp_path / SUMMARY).write_text("{")
    with pytest.raises(BadInput, match="run crawltalk eval again"):
        read_benchmarks(tmp_path / SUMMARY)
