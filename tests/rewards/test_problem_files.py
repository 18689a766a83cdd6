"""Problems from files."""

import pytest

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.types import Problem
from crawltalk.rewards.problems import read_problems


def test_rows_of_three_forms_are_problems_and_others_are_set_aside(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"question": "2 + 3?", "answer": "2 + 3 = 5\\n#### 5"}\n'
        '{"problem": "2 + 3?", "solution": "So \\\\boxed{5}, no, \\\\boxed{6}.", "level": "Level 1"}\n'
        '{"problem": "2 + 3?", "answer": 5}\n\n'
        '{"prompt": "2 + 3?", "answer": " 5 ", "task": "sums"}\n'
        '{"prompt": [{"role": "user", "content": "2 + 3?"}], "reward_model": {"ground_truth": "5"}}\n'
        '{"problem": "2 + 3?", "solution": "5"}\n'
        '{"question": " ", "answer": "5"}\n'
        '{"text": "once"}\n'
        "[1]\n"
        "{",
        encoding="utf-8",
    )
    problems, left_out = read_problems(path)
    assert problems == [
        Problem(prompt="2 + 3?", answer="5", task="gsm8k"),
        Problem(prompt="2 + 3?", answer="6", task="math"),
        Problem(prompt="2 + 3?", answer="5", task="math"),
        Problem(prompt="2 + 3?", answer="5", task="sums"),
        Problem(prompt="2 + 3?", answer="5", task="own"),
    ]
    assert [one.row for one in left_out] == [7, 8, 9, 10, 11]
    assert left_out[2].reason == "no text in 'prompt'; it has 'text'"


def test_a_file_without_problems_is_refused(tmp_path):
    (tmp_path / "none.jsonl").write_text('{"text": "once"}\n', encoding="utf-8")
    with pytest.raises(BadInput, match=r"has no problems; row 1: no text"):
        read_problems(tmp_path / "none.jsonl")
    with pytest.raises(MissingInput):
        read_problems(tmp_path / "missing.jsonl")
