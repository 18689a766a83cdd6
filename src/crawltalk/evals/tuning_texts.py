"""The texts that a run's assistant was trained on after its pretraining, as its stages wrote them down: conversations,
preferences, and the prompts whose replies were reinforced.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from crawltalk.chat.messages import Conversation, Message, Preference, TextPart
from crawltalk.core.jsonl import read_jsonl
from crawltalk.core.types import Problem
from crawltalk.models import lineage
from crawltalk.run.folder import RunFolder


class _Rollout(msgspec.Struct):
    """A line of rollouts.jsonl: what was asked is what counts here."""

    problem: Problem


Row = Conversation | Preference | _Rollout
FILES: dict[str, type[Row]] = {
    "conversations.jsonl": Conversation,
    "preferences.jsonl": Preference,
    "rollouts.jsonl": _Rollout,
}
"""Of a stage's folder, with what a line is."""


def tuning_files(run: RunFolder, stage: str) -> dict[str, Path]:
    """What the model of a stage, and those that it was trained from, learned from: sft/conversations.jsonl -> where it
    is. None for a base model.
    """
    folders = [(one.name, run.folder(one.name)) for one in lineage(run, stage)]
    return {
        f"{name}/{file}": folder / file
        for name, folder in folders
        for file in FILES
        if (folder / file).exists()
    }


def texts_in(path: Path) -> Iterator[list[str]]:
    """The texts of each line of such a file. Raises BadInput for a line that is none."""
    for row in read_jsonl(path, FILES[path.name]):
        match row:
            case Conversation():
                yield _texts(row.messages)
            case Preference():
                yield _texts([*row.messages, *row.chosen, *row.rejected])
            case _Rollout():
                yield [row.problem.prompt]


def _texts(messages: Iterable[Message]) -> list[str]:
    found = []
    for message in messages:
        parts = [TextPart(message.content)] if isinstance(message.content, str) else message.content
        found += [part.text for part in parts if isinstance(part, TextPart)]
    return found
