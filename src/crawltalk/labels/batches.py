"""Prompts to label, and labels made elsewhere, out of files."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from crawltalk.chat.messages import Message, as_messages
from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.formats import READ_ERRORS, open_plain
from crawltalk.core.types import Problem
from crawltalk.labels.rows import NewPrompt, Record, check_record
from crawltalk.labels.store import LabelStore


class Imported(msgspec.Struct):
    """What became of the rows of a file."""

    prompts: int
    """New in the batch."""
    labels: int
    """New in the store."""
    known: int
    """Rows that were there already."""
    set_aside: list[str]
    """Why rows were not taken, each with its line."""


def import_file(store: LabelStore, path: Path, batch: str) -> Imported:
    """Add the rows of a JSONL file, which may be compressed. A row is one of:

    - `{"prompt": "..."}` or `{"messages": [...]}`, to which `"replies": ["...", ...]` and the `"model"` that made them
      may be added. What the assistant says at the end of `messages` is a reply, too.
    - a row of a file of preferences: `chosen` and `rejected` are replies; so is `completion`.
    - a label as `crawltalk labels export --as labels` writes it.

    A row that is none of them is set aside. Raises MissingInput if there is no such file, BadInput if none of its
    rows is taken.
    """
    prompts: list[NewPrompt] = []
    records: list[Record] = []
    set_aside: list[str] = []
    for number, line in _lines(path):
        try:
            given = msgspec.json.decode(line)
            if isinstance(given, dict) and isinstance(given.get("label"), dict):
                record = msgspec.convert(given, Record)
                check_record(record)
                records.append(record)
            else:
                prompts.append(_row(given))
        except (msgspec.MsgspecError, UnicodeDecodeError, BadInput, RecursionError) as error:
            set_aside.append(f"line {number}: {error}")
    if not (prompts or records):
        raise BadInput(f"{path} has no prompt that can be labelled; {(set_aside or ['it is empty'])[0]}")
    added = store.add_prompts(batch, prompts, path.name) if prompts else 0
    merged = store.merge(records) if records else 0
    return Imported(added, merged, len(prompts) + len(records) - added - merged, set_aside)


def import_problems(store: LabelStore, problems: Sequence[Problem], batch: str) -> int:
    """Add the problems of a run. Returns how many are new."""
    rows = [NewPrompt([Message("user", problem.prompt)]) for problem in problems]
    return store.add_prompts(batch, rows, "problems.jsonl")


def import_chat(store: LabelStore, batch: str) -> int:
    """Add the prompts under whose replies somebody gave a thumb in the chat. Returns how many are new."""
    prompts = [
        NewPrompt(prompt.messages) for prompt in store.snapshot().prompts.values() if prompt.source == "chat"
    ]
    if not prompts:
        raise MissingInput(
            "no reply of the chat has a thumb yet; give one in the page: crawltalk serve, then Chat"
        )
    return store.add_prompts(batch, prompts, "chat")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that hold something, with their numbers. A line without an end may still be being written; it is
    read like the others.
    """
    if not path.is_file():
        raise MissingInput(f"{path} does not exist")
    try:
        with open_plain(path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except READ_ERRORS as error:
        raise BadInput(f"{path} cannot be read to its end: {error}") from None


def _row(given: Any) -> NewPrompt:
    """Raises BadInput for what is no prompt."""
    if not isinstance(given, dict):
        raise BadInput("a row is an object with a prompt or messages")
    given = {key: value for key, value in given.items() if value is not None}
    messages = given.get("messages", given.get("prompt"))
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, list):
        raise BadInput('a row needs "prompt" (a text) or "messages" (a list)')
    before = as_messages(messages)
    said = before
    while before and before[-1].role == "assistant":
        before = before[:-1]
    replies = [said[len(before) :]] if len(before) < len(said) else []
    more = given.get(
        "replies", [given[name] for name in ("chosen", "rejected", "completion") if name in given]
    )
    if not isinstance(more, list) or not isinstance(given.get("model", ""), str):
        raise BadInput('"replies" is a list, "model" a name')
    replies += [_reply(one, before) for one in more]
    row = NewPrompt(before, replies, given.get("model", ""))
    row.check()
    return row


def _reply(given: Any, before: Sequence[Message]) -> list[Message]:
    """A text, or messages; those that repeat the prompt are cut off."""
    if isinstance(given, str):
        return [Message("assistant", given)]
    if not isinstance(given, list):
        raise BadInput("a reply is a text or a list of messages")
    messages = as_messages(given)
    return messages[len(before) :] if messages[: len(before)] == list(before) else messages
