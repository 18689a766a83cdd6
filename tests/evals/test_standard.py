"""Questions from files, and how a model's answers to them are scored."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.engine import Engine
from crawltalk.evals.standard import (
    STANDARD,
    Question,
    ask,
    choice_scores,
    encode_pair,
    first_questions,
    last_number,
    passes,
    program_of,
    read_questions,
    true_share,
)
from support.engines import MODEL, SHAPE, TOKENIZER
from support.models import random_model
from support.tokenizers import SHARED

ENGINE = Engine(MODEL, TOKENIZER)
LONG = random_model(replace(SHAPE, context=256))
QUESTIONS = [
    Question(str(i), text, ("the", "a tree", "th"), "a tree") for i, text in enumerate(("the?", "e?"))
]


def write(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_all_common_forms_of_multiple_choice_give_the_same_question(tmp_path: Path):
    label_text = {"label": ["A", "B"], "text": ["x", "y"]}
    pairs = [{"label": "A", "text": "x"}, {"label": "B", "text": "y"}]
    rows = [
        {"question": "Q?", "choices": label_text, "answerKey": "B"},
        {"question": "Q?", "options": pairs, "answer": "B"},
        {"question": {"stem": "Q?", "choices": pairs}, "answerKey": "B"},
        {"question": "Q?", "choices": ["x", "y"], "answer": 1},
        {"question": "Q?", "choices": ["x", "y"], "answer": "B"},
    ]
    read = list(read_questions(write(tmp_path / "q.jsonl", rows), choices=True))
    assert read == [Question(str(i), "Q?", ("x", "y"), "y") for i in range(5)]
    pq.write_table(pa.Table.from_pylist(rows[:1]), tmp_path / "q.parquet")
    assert list(read_questions(tmp_path / "q.parquet", choices=True)) == read[:1]


def test_a_row_that_is_no_question_is_named_and_the_others_are_kept(tmp_path: Path):
    good = {"question": "Q?", "choices": ["x", "y"], "answer": "B"}
    path = write(
        tmp_path / "q.jsonl", [{"question": "Q?"}, good, {**good, "answer": "C"}, {**good, "answer": 7}]
    )
    path.write_text(path.read_text() + "not json\n", encoding="utf-8")
    read = list(read_questions(path, choices=True))
    assert [isinstance(row, Question) for row in read] == [False, True, False, False, False]
    assert str(read[0]).startswith("row 1: no 'answer'")


def test_a_row_without_its_answer_is_none_and_one_without_an_identifier_has_its_place(tmp_path: Path):
    good = {"question": "Q?", "choices": ["x", "y"], "answer": 1, "id": None}
    path = write(tmp_path / "q.jsonl", [{**good, "answer": -1}, good, good])
    unanswered, *others = read_questions(path, choices=True)
    assert unanswered == "row 1: the answer is -1, which is no choice"
    assert [one.id for one in others if isinstance(one, Question)] == ["1", "2"]


def test_a_missing_file_and_one_of_another_kind_are_the_users_mistake(tmp_path: Path):
    with pytest.raises(MissingInput, match="--data"):
        list(read_questions(tmp_path / "no.jsonl", choices=True))
    (tmp_path / "page.html").write_text("<html>")
    with pytest.raises(BadInput, match="JSONL"):
        list(read_questions(tmp_path / "page.html", choices=True))


# acc = argmax(lls) and acc_norm = argmax(lls / number of characters), both against the right choice: the two lines of
# `process_results` in lm-evaluation-harness 0.4.13 for `multiple_choice`, worked out by hand here. Of equal ones the
# first counts, as with numpy's argmax.
@pytest.mark.parametrize(
    ("logprobs", "choices", "right", "acc", "acc_norm"),
    [
        ([-4.0, -5.0], ["ab", "abcdef"], 0, 1.0, 0.0),  # -2.00 and -0.83 a character
        ([-4.0, -5.0], ["ab", "abcdef"], 1, 0.0, 1.0),
        ([-3.0, -3.0], ["abc", "abc"], 1, 0.0, 0.0),
        ([-9.0, -2.0, -8.0], ["abcdefghi", "a", "abcd"], 0, 0.0, 1.0),  # -1, -2, -2
    ],
)
def test_multiple_choice_is_scored_as_in_the_harness(logprobs, choices, right, acc, acc_norm):
    assert choice_scores(logprobs, choices, right) == {"acc": acc, "acc_norm": acc_norm}


LETTERS_ROW = "What is wet?,sand,salt,the sea,stone,C\n"


def test_mmlu_is_read_as_its_authors_give_it_and_as_others_copied_it(tmp_path: Path):
    for split, rows in (("test", LETTERS_ROW * 2), ("dev", LETTERS_ROW)):
        (tmp_path / split).mkdir()
        (tmp_path / split / f"high_school_physics_{split}.csv").write_text(rows)
    with_header = "question,choice0,choice1,choice2,choice3,answer\n" + LETTERS_ROW.replace(",C", ",2")
    (tmp_path / "test" / "anatomy_test.csv").write_text(with_header)
    read = list(read_questions(tmp_path, choices=True))
    assert [row.id for row in read] == ["anatomy-0", "high_school_physics-0", "high_school_physics-1"]
    assert {(row.text, row.answer, len(row.choices)) for row in read} == {("What is wet?", "the sea", 4)}
    assert [row.subject for row in read_questions(tmp_path, choices=True, split="dev")] == [
        "high_school_physics"
    ]


def test_truthfulqa_is_the_best_answer_among_the_wrong_ones_in_both_of_its_forms(tmp_path: Path):
    (tmp_path / "t.csv").write_text(
        "Type,Question,Best Answer,Correct Answers,Incorrect Answers\nA,Is it?,No,No; Never,Yes; Perhaps; Yes\n"
    )
    rows = [{"question": "Is it?", "mc1_targets": {"choices": ["No", "Yes", "Perhaps"], "labels": [1, 0, 0]}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    expected = [Question("0", "Is it?", ("No", "Yes", "Perhaps"), "No")]
    assert list(read_questions(tmp_path / "t.csv", choices=True)) == expected
    assert list(read_questions(tmp_path / "t.parquet", choices=True)) == expected


def test_mc2_has_all_true_answers_among_all_wrong_ones_in_both_forms_of_truthfulqa(tmp_path: Path):
    (tmp_path / "t.csv").write_text(
        "Type,Question,Best Answer,Correct Answers,Incorrect Answers\n"
        "A,Is it?,Never,No; Never; No,Yes; Perhaps; Yes\nA,And is it?,No,No,\n"
    )
    targets = {"choices": ["No", "Never", "Yes", "Perhaps"], "labels": [1, 1, 0, 0]}
    rows = [{"question": "Is it?", "mc2_targets": targets}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    read = list(read_questions(tmp_path / "t.csv", choices=True, several=True))
    assert read[0] == Question("0", "Is it?", ("No", "Never", "Yes", "Perhaps"), "No", "", (0, 1))
    assert read[1] == "row 2: there are not both true answers and wrong ones"
    assert first_questions(tmp_path / "t.parquet", "truthfulqa_mc2") == (read[:1], [])
    other = write(tmp_path / "q.jsonl", [{"question": "Q?", "choices": ["x", "y"], "answer": 1}])
    with pytest.raises(BadInput, match="no 'mc2_targets'"):
        first_questions(other, "truthfulqa_mc2")


# exp(lls) / sum(exp(lls)), summed where labels == 1: `process_results_mc2` in lm_eval/tasks/truthfulqa/utils.py of
# lm-evaluation-harness 0.4.13, computed here with numpy; beyond exp's range its figure is not a number.
@pytest.mark.parametrize("logprobs", [[-4.0, -5.5, -3.25], [-40.0, -41.0, -39.0], [-2.0, -2.0, -2.0]])
def test_mc2_is_the_normalised_probability_of_the_true_answers_as_in_the_harness(logprobs: list[float]):
    masses = np.exp(logprobs)
    expected = (masses / masses.sum())[np.array([1, 0, 1]) == 1].sum()
    assert true_share(logprobs, (0, 2)) == pytest.approx(expected)
    assert true_share([value - 1000 for value in logprobs], (0, 2)) == pytest.approx(expected)


def test_a_question_with_several_true_choices_is_scored_from_the_log_likelihoods_of_all():
    asked = [question._replace(true=(1, 2)) for question in QUESTIONS]
    for question, result in zip(asked, ask(ENGINE, "truthfulqa_mc2", asked).results, strict=True):
        assert result.prompt == f"Q: {question.text}\nA:"
        assert result.scores == {"mc2": pytest.approx(true_share(result.logprobs, (1, 2)), abs=1e-3)}


def test_a_limit_takes_each_subject_in_turn_and_keeps_the_order(tmp_path: Path):
    rows = [{"question": "Q?", "choices": ["x", "y"], "answer": 0, "subject": name} for name in "aaabbc"]
    path = write(tmp_path / "q.jsonl", rows)
    assert [row.id for row in first_questions(path, "mmlu", 4)[0]] == ["0", "1", "3", "5"]
    assert len(first_questions(path, "mmlu")[0]) == 6


def test_solved_examples_are_those_of_the_subject_behind_one_heading():
    ask_about = [Question("0", "e?", ("the", "th"), "th", "sea_life")]
    examples = [Question(str(i), f"{i}?", ("a", "b"), "b", ("birds", "sea_life")[i % 2]) for i in range(4)]
    [result] = ask(Engine(LONG, TOKENIZER), "mmlu", ask_about, examples=examples, shots=1).results
    assert result.prompt == (
        "The following are multiple choice questions (with answers) about sea life.\n\n"
        "1?\nA. a\nB. b\nAnswer: B\n\ne?\nA. the\nB. th\nAnswer:"
    )
    with pytest.raises(BadInput, match="2 solved examples of sea_life and --shots is 3"):
        ask(ENGINE, "mmlu", ask_about, examples=examples, shots=3)


def test_the_log_likelihood_of_a_choice_is_that_of_the_whole_text():
    asked = ask(ENGINE, "arc_challenge", QUESTIONS)
    for question, result in zip(QUESTIONS, asked.results, strict=True):
        for choice, logprob in zip(question.choices, result.logprobs, strict=True):
            prompt, added = encode_pair(ENGINE, result.prompt, choice)
            rows = torch.log_softmax(ENGINE.logits([*prompt, *added]), dim=-1)
            expected = sum(rows[len(prompt) - 1 + i, token] for i, token in enumerate(added))
            assert logprob == pytest.approx(float(expected), abs=2e-3)


def test_examples_stand_before_the_question_with_their_answers():
    [result] = ask(ENGINE, "commonsense_qa", [], examples=[]).results or [None]
    assert result is None
    task = STANDARD["commonsense_qa"]
    assert task.solved(QUESTIONS[0]) == "Question: the?\nA. the\nB. a tree\nC. th\nAnswer: B"
    asked = ask(
        ENGINE,
        "exact_match",
        [Question("0", "e?", (), "th")],
        examples=[Question("1", "a?", (), "e")],
        shots=1,
    )
    assert not asked.left_out or "context" in asked.left_out[0]


def test_what_does_not_fit_is_left_out_with_its_length():
    asked = ask(ENGINE, "exact_match", [Question("7", "the " * 60, (), "a")])
    assert asked.results == []
    assert asked.left_out[0].startswith("7: ")


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("so 3 x 14 = 42.00 dollars", "42.00"),
        ("The answer is $1,234.", "1234"),
        ("I think ...", ""),
        ("16-3=13", "13"),
        ("minus: -5", "-5"),
        ("1,2,3", "3"),
    ],
)
def test_the_last_number_is_found(reply: str, number: str):
    assert last_number(reply) == number


def test_numbers_are_compared_by_value_and_dots_are_none():
    equal = STANDARD["gsm8k_last_number"].equal
    assert equal("42.00", "42")
    assert equal("1234", "1,234")
    assert not equal("", "...")
    assert not equal("42.01", "42")
    question = Question("0", "?", (), "so 6 * 7 = 42\n#### 42")
    assert STANDARD["gsm8k_last_number"].target(question) == "42"


BEGINNING = 'from math import gcd\n\n\ndef double(x):\n    """ Twice x.\n    >>> double(2)\n    4\n    """\n'
HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": BEGINNING,
    "entry_point": "double",
    "test": "\n\nMETADATA = {}\n\ndef check(candidate):\n    assert candidate(2) == 4\n    assert candidate(3) == 6\n",
}


def test_humaneval_is_read_with_its_tests_and_a_row_without_any_is_named(tmp_path: Path):
    path = tmp_path / "h.jsonl.gz"
    untested = {**HUMANEVAL, "test": "def check(candidate):\n    pass\n"}
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in (HUMANEVAL, untested)).encode()))
    [question], left_out = first_questions(path, "humaneval")
    assert (question.id, question.text, question.choices) == ("HumanEval/0", BEGINNING, ())
    assert left_out == ["row 2: there is no assert"]
    [result] = ask(Engine(LONG, TOKENIZER), "humaneval", [question], max_tokens=8).results
    assert (result.prompt, result.scores) == (BEGINNING, {"pass@1": 0.0})
    with pytest.raises(BadInput, match="leave --shots out"):
        ask(ENGINE, "humaneval", [question], examples=[question], shots=1)


@pytest.mark.parametrize(
    ("reply", "chat", "right"),
    [
        ("    return 2 * x\n", False, True),
        ("    return x + x", True, True),
        ("    return x * x\n", False, False),
        ("    return 2 *", False, False),
        ("    import sys\n    sys.exit(0)\n", False, False),
        ("So:\n```python\ndef double(x):\n    return x * 2 * gcd(1, 2)\n```\nDone.", True, True),
        ("So:\n```python\ndef double(x):\n    return x * 2\n```", False, False),
    ],
)
def test_a_program_is_right_if_it_passes_all_tests_of_its_function(reply: str, chat: bool, right: bool):
    tests = f"{HUMANEVAL['test']}\ncheck(double)"
    assert passes(program_of(BEGINNING, reply, chat=chat), tests) == right


@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared data sets")
@pytest.mark.parametrize(
    ("path", "choices", "count"),
    [
        ("arc_challenge/arc_challenge_test.jsonl", True, 1172),
        ("reasoning_mc/dataset/CommonsenseQA/dev_rand_split.jsonl", True, 1221),
        ("gsm8k/test.jsonl", False, 1319),
        ("mmlu/data/mmlu", True, 14042),
        ("truthfulqa/TruthfulQA.csv", True, 790),
        ("reasoning_mc/dataset/coin_flip/coin_flip.json", False, 500),
        ("humaneval/HumanEval.jsonl.gz", False, 164),
    ],
)
def test_published_files_are_read_whole(path: str, choices: bool, count: int):
    several = [False, True] if "truthfulqa" in path else [False]
    for one in several:
        read = list(read_questions(SHARED / path, choices=choices, several=one))
        assert sum(isinstance(row, Question) for row in read) == count == len(read)
