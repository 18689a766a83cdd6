"""Conversations that are left out of a training, named by ids that are made of what they say: an id stays right when
rows are moved, and names nothing when its row was changed.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from crawltalk.chat.messages import Conversation
from crawltalk.core.errors import BadInput
from crawltalk.core.files import write_atomically

_DIGITS = 16


def conversation_id(conversation: Conversation) -> str:
    """Sixteen hexadecimal digits: a hash of its messages and tools. Equal conversations have the same."""
    text = msgspec.json.encode([conversation.messages, conversation.tools])
    return hashlib.sha256(text).hexdigest()[:_DIGITS]


def read_ids(path: str | Path) -> set[str]:
    """The ids of a list: one a line; what follows a # is a comment. Raises BadInput for a line that is none, and for a
    list without any.
    """
    ids: set[str] = set()
    for number, line in enumerate(
        Path(path).read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1
    ):
        entry = line.partition("#")[0].strip().lower()
        if entry and (len(entry) != _DIGITS or set(entry) - set("0123456789abcdef")):
            raise BadInput(f"{path}, line {number}: {entry[:40]!r} is no id of {_DIGITS} hexadecimal digits")
        ids |= {entry} - {""}
    if not ids:
        raise BadInput(f"{path} names no conversation; write ids into it, or leave exclude out")
    return ids


def write_ids(path: str | Path, ids: Mapping[str, str]) -> None:
    """Write a list of ids, each with a comment."""
    write_atomically(path, "".join(f"{one}  # {comment}\n" for one, comment in ids.items()).encode())
