"""Problems from files of the field: GSM8K, MATH, verl's, or one's own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from crawltalk.core.errors import BadInput
from crawltalk.core.rows import Fields, read_rows
from crawltalk.core.types import Problem
from crawltalk.rewards.answers import last_box


class LeftOut(NamedTuple):
    """A row that is no problem."""

    row: int
    reason: str


def problem_rows(
    path: str | Path, prompt: str | None = None, answer: str | None = None
) -> Iterator[tuple[int, Problem | str]]:
    """The rows of a JSONL, JSON or Parquet file as problems, each with its number (the first is 1), or the reason why
    it is none.

    Rows are GSM8K's (`question`, and `answer` that ends with `#### 42`; Cobbe et al. 2021), MATH's (`problem`, and
    `answer` or a `solution` whose last box is the answer; Hendrycks et al. 2021), verl's (`prompt` as messages, and
    `reward_model.ground_truth`), or `prompt` and `answer`. The columns may be named instead, `a.b` for what is nested.
    Raises MissingInput if there is no such file, BadInput if it is damaged.
    """
    for number, row in read_rows(Path(path), "problems"):
        if isinstance(row, str):
            yield number, row
            continue
        try:
            yield number, _named(row, prompt, answer) if prompt or answer else _recognised(row)
        except BadInput as error:
            yield number, str(error)


def read_problems(path: str | Path) -> tuple[list[Problem], list[LeftOut]]:
    """The problems of a file, as `problem_rows` reads them, and the rows that are none. Raises BadInput if it has no
    problem.
    """
    problems, left_out = [], []
    for number, found in problem_rows(path):
        if isinstance(found, str):
            left_out.append(LeftOut(number, found))
        else:
            problems.append(found)
    if not problems:
        why = f"row {left_out[0].row}: {left_out[0].reason}" if left_out else "it is empty"
        raise BadInput(f"{path} has no problems; {why}")
    return problems, left_out


def _named(row: Fields, prompt: str | None, answer: str | None) -> Problem:
    return _asked(str(row.get("task", "own")), _text(row, prompt or "prompt"), _text(row, answer or "answer"))


def _recognised(row: Fields) -> Problem:
    if "problem" in row:
        given = _text(row, "answer") if "answer" in row else last_box(_text(row, "solution"))
        if given is None:
            raise BadInput("its solution has no \\boxed{...}")
        return _asked("math", _text(row, "problem"), given)
    if "question" in row:
        return _asked("gsm8k", _text(row, "question"), _text(row, "answer").rpartition("####")[2])
    return _named(row, None, "reward_model.ground_truth" if "reward_model" in row else None)


def _text(row: Fields, key: str) -> str:
    """A text or a number, or what a person asks in a list with one message."""
    value: Any = row
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    match value:
        case str():
            return value
        case int() | float() if not isinstance(value, bool):
            return str(value)
        case [{"role": "user", "content": str(text)}]:
            return text
    raise BadInput(f"no text in {key!r}; it has {', '.join(map(repr, row)) or 'nothing'}")


def _asked(task: str, prompt: str, answer: str) -> Problem:
    if not prompt.strip() or not answer.strip():
        raise BadInput("the answer is empty" if prompt.strip() else "the question is empty")
    return Problem(prompt=prompt, answer=answer.strip(), task=task)
