"""Problems from files of one JSON object a line: GSM8K, MATH, or one's own."""

from pathlib import Path
from typing import Any

import msgspec

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.types import Problem
from crawltalk.rewards.answers import last_box


def read_problems(path: str | Path) -> tuple[list[Problem], list[str]]:
    """The problems of a file, and the rows that are none, each with its line and the reason.

    Rows are GSM8K's (`question`, and `answer` that ends with `#### 42`; Cobbe et al. 2021), MATH's (`problem`, and
    `answer` or a `solution` whose last box is the answer; Hendrycks et al. 2021), or `prompt` and `answer`. Raises
    MissingInput if there is no such file, BadInput if it has no problem.
    """
    if not Path(path).exists():
        raise MissingInput(f"{path} does not exist")
    problems, left_out = [], []
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                problems.append(_problem(msgspec.json.decode(line)))
            except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
                left_out.append(f"{path}, line {number}: {error}")
    if not problems:
        raise BadInput(f"{path} has no problems; {left_out[0] if left_out else 'it is empty'}")
    return problems, left_out


def _problem(row: Any) -> Problem:
    if not isinstance(row, dict):
        raise ValueError("no object")
    if "problem" in row:
        answer = row["answer"] if "answer" in row else last_box(_text(row, "solution"))
        if answer is None:
            raise ValueError("its solution has no \\boxed{...}")
        return _asked("math", _text(row, "problem"), str(answer))
    if "question" in row:
        return _asked("gsm8k", _text(row, "question"), _text(row, "answer").rpartition("####")[2])
    return _asked(str(row.get("task", "own")), _text(row, "prompt"), _text(row, "answer"))


def _text(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise ValueError(f"no text in {key!r}; it has {', '.join(map(repr, row)) or 'nothing'}")
    return value


def _asked(task: str, prompt: str, answer: str) -> Problem:
    if not prompt.strip() or not answer.strip():
        raise ValueError("the answer is empty" if prompt.strip() else "the question is empty")
    return Problem(prompt=prompt, answer=answer.strip(), task=task)
