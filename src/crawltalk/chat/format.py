"""Chat formats: how a conversation becomes one sequence, for `transformers` as a Jinja template, too.

A turn is `start role role_end gap content end after`. Which format a model speaks is read from its folder or
from its vocabulary.
"""

import dataclasses
import json
from collections.abc import Container
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from crawltalk.chat.tool_calls import HERMES, SHORT, ToolsForm
from crawltalk.core.errors import BadInput
from crawltalk.tokenizer.files import CONFIG, read_object
from crawltalk.tokenizer.tokenizer import CALL_END, CALL_START, RESPONSE_END, RESPONSE_START


@dataclass(frozen=True, kw_only=True)
class ChatFormat:
    """The pieces of a turn, `start role role_end gap content end after`, and what comes before the first."""

    start: str
    """Control token that opens a turn."""
    role_end: str | None
    """Control token after the role, if there is one."""
    gap: str
    """Text between the role and the content."""
    end: str
    """Control token that ends a turn."""
    after: str = ""
    """Text after the end of a turn."""
    begin: str | None = None
    """Control token before the first turn."""
    default_system: str | None = None
    """What a conversation without a system message begins with."""
    short_tools: bool = False
    """Whether functions are listed in the short form, which models in the wild have not learned."""

    @property
    def tools_form(self) -> ToolsForm:
        """How the system message lists functions."""
        return SHORT if self.short_tools else HERMES

    def template(self) -> str:
        """The same format as a Jinja chat template, for `transformers`: names for the pieces, then
        `template.jinja`.
        """
        pieces = {**dataclasses.asdict(self), "role_end": self.role_end or "", "begin": self.begin or ""}
        pieces |= {"before_tools": self.tools_form.before, "after_tools": self.tools_form.after} | _MARKS
        return "".join(f"{{%- set {name} = {_quoted(piece)} %}}" for name, piece in pieces.items()) + _BODY

    def config(self) -> dict[str, Any]:
        """Its entries in tokenizer_config.json: for other libraries, and for us."""
        return {"chat_template": self.template(), "crawltalk_chat": dataclasses.asdict(self)}


def _quoted(piece: str | bool | None) -> str:
    """A Jinja literal."""
    return "none" if piece is None else json.dumps(piece, ensure_ascii=False)


_MARKS = {
    "call_start": CALL_START,
    "call_end": CALL_END,
    "response_start": RESPONSE_START,
    "response_end": RESPONSE_END,
}
_BODY = files("crawltalk.chat").joinpath("template.jinja").read_text(encoding="utf-8").strip()

CRAWLTALK = ChatFormat(
    start="<|im_start|>", role_end="<|im_sep|>", gap="", end="<|im_end|>", short_tools=True
)
CHATML = ChatFormat(start="<|im_start|>", role_end=None, gap="\n", end="<|im_end|>", after="\n")
LLAMA3 = ChatFormat(
    start="<|start_header_id|>",
    role_end="<|end_header_id|>",
    gap="\n\n",
    end="<|eot_id|>",
    begin="<|begin_of_text|>",
)


def detect(names: Container[str]) -> ChatFormat | None:
    """The format that a vocabulary's control tokens are made for."""
    for chat in (CRAWLTALK, LLAMA3, CHATML):
        if chat.start in names and (chat.role_end is None or chat.role_end in names):
            return chat
    return None


def load_format(folder: str | Path, names: Container[str]) -> tuple[ChatFormat | None, bool]:
    """The format of the model in a folder whose vocabulary has control tokens of these names, and whether we saved
    it; else it is the one that its control tokens are made for. Raises BadInput for a damaged
    tokenizer_config.json.
    """
    path = Path(folder) / CONFIG
    config = read_object(path) if path.exists() else {}
    if "crawltalk_chat" not in config:
        return detect(names), False
    try:
        return ChatFormat(**config["crawltalk_chat"]), True
    except TypeError as error:
        raise BadInput(f"{path} has a chat format of another version: {error}") from None
