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
    ]
    assert [reason.split(", ", 1)[1].split(":")[0] for reason in left_out] == [
        f"line {n}" for n in (6, 7, 8, 9, 10)
    ]
    assert "no text in 'prompt'; it has 'text'" in left_out[2]


def test_a_file_without_problems_is_refused(tmp_path):
    (tmp_path / "none.jsonl").write_text('{"text": "once"}\n', encoding="utf-8")
    with pytest.raises(BadInput, match=r"has no problems; .*line 1"):
        read_problems(tmp_path / "none.jsonl")
    with pytest.raises(MissingInput):
        read_problems(tmp_path / "missing.jsonl")
