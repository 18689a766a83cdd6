"""attempts.jsonl: every attempt with its whole prompt and reply, so that each can be judged and asked again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from crawltalk.core.errors import BadInput
from crawltalk.core.jsonl import read_jsonl
from crawltalk.redteam.frame import Oracle, Outcome, Prompt, Reply, judge
from crawltalk.tasks.scoring import is_refusal

ATTEMPTS = "attempts.jsonl"
Kind = Literal["attack", "twin", "plain"]
"""An attack on a goal; the same on its harmless twin; the twin asked plainly."""


class Attempt(msgspec.Struct, kw_only=True):
    """A line of attempts.jsonl."""

    target: str
    defense: str
    attack: str
    seed: int
    kind: Kind
    goal: str
    oracle: Oracle
    number: int
    """Of the attempts at its goal, from 0."""
    prompt: Prompt
    reply: Reply
    outcome: Outcome
    reason: str
    refused: bool
    """Whether the reply has a phrase of refusals; no verdict follows from it."""
    cpu_seconds: float
    """Its share of making prompts and asking."""
    max_tokens: int | None = None
    """The most of a reply; None where the target has no such limit."""

    @property
    def key(self) -> "Key":
        """What no two attempts share."""
        return (self.target, self.defense, self.attack, self.seed, self.kind, self.goal, self.number)


Key = tuple[str, str, str, int, Kind, str, int]


class AttemptLog:
    """The file, and the attempts that it holds; new ones are appended as they are made. An attempt that got no answer
    is made again by whoever resumes, and its later row counts.
    """

    def __init__(self, path: Path) -> None:
        """Raises BadInput for a damaged line, other than a last one that was being written."""
        self._rows: dict[Key, Attempt] = {}
        whole = 0
        if path.exists():
            decoder = msgspec.json.Decoder(Attempt)
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if not line.endswith(b"\n"):
                        break
                    try:
                        row = decoder.decode(line)
                    except msgspec.MsgspecError as error:
                        raise BadInput(
                            f"{path}, line {number}: {error}; remove the file to attempt all again"
                        ) from None
                    self._rows[row.key] = row
                    whole += len(line)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._file.truncate(whole)

    def __enter__(self) -> "AttemptLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Attempt]:
        return iter(self._rows.values())

    def find(self, key: Key) -> Attempt | None:
        """An attempt that was answered."""
        row = self._rows.get(key)
        answered = row is not None and row.outcome in (Outcome.SUCCESS, Outcome.FAIL)
        return row if answered else None

    def add(
        self,
        key: Key,
        oracle: Oracle,
        prompt: Prompt,
        reply: Reply,
        cpu_seconds: float,
        max_tokens: int | None = None,
    ) -> Attempt:
        """Judge an attempt and write it."""
        target, defense, attack, seed, kind, goal, number = key
        outcome, reason = judge(oracle, prompt, reply)
        row = Attempt(
            target=target, defense=defense, attack=attack, seed=seed, kind=kind, goal=goal, oracle=oracle,
            number=number, prompt=prompt, reply=reply, outcome=outcome, reason=reason, refused=is_refusal(reply.text),
            cpu_seconds=round(cpu_seconds, 6), max_tokens=max_tokens,
        )  # fmt: skip
        self._rows[key] = row
        self._file.write(msgspec.json.encode(row) + b"\n")
        self._file.flush()
        return row


def read_attempt(path: Path, line: int) -> Attempt:
    """The attempt in a line, counted from 1. Raises MissingInput or BadInput."""
    rows = list(read_jsonl(path, Attempt))
    if not 0 < line <= len(rows):
        raise BadInput(f"{path} has {len(rows)} lines, and no line {line}")
    return rows[line - 1]
