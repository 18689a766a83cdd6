"""Chat formats: how a conversation becomes one sequence, for `transformers` as a Jinja template, too.

A turn is `start role role_end gap content end after`. Which format a model speaks is read from its folder or
from its vocabulary.
"""

import dataclasses
import json
import re
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


_MARK = re.compile(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})")
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


def load_format(folder: str | Path, names: Container[str]) -> ChatFormat | None:
    """The format of the model in a folder whose vocabulary has control tokens of these names: as we saved it,
    or as its control tokens and its own template say. Raises BadInput for a damaged tokenizer_config.json.
    """
    path = Path(folder) / CONFIG
    config = read_object(path) if path.exists() else {}
    if "crawltalk_chat" in config:
        try:
            return ChatFormat(**config["crawltalk_chat"])
        except TypeError as error:
            raise BadInput(f"{path} has a chat format of another version: {error}") from None
    template = Path(folder) / "chat_template.jinja"
    if template.exists():
        return from_template(template.read_text(encoding="utf-8"), names)
    return from_template(str(config.get("chat_template", "")), names)


def from_template(template: str, names: Container[str]) -> ChatFormat | None:
    """The format that control tokens of these names are made for, with the system message that the model's own
    Jinja template writes where a conversation has none (SmolLM2's and Qwen2.5's do).
    """
    chat = detect(names)
    return chat and dataclasses.replace(chat, default_system=default_system(chat, template))


def without_marks(template: str) -> str:
    """The template without `{% generation %}` around what the assistant writes, which only `transformers` knows."""
    return _MARK.sub(lambda mark: mark[1] + ("endif" if mark[2] else "if true") + mark[3], template)


def default_system(chat: ChatFormat, template: str) -> str | None:
    """The system message that a template writes when a conversation has none; None if it writes none, or if it
    fails on such a conversation.

    The template is a stranger's program: it runs in Jinja's sandbox, as in `transformers`.
    """
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    try:
        text = environment.from_string(without_marks(template)).render(
            messages=[{"role": "user", "content": "Hi"}], bos_token="", eos_token="", tools=None
        )
    except (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return None
    _, opened, rest = text.partition(f"{chat.start}system{chat.role_end or ''}{chat.gap}")
    system, ended, _ = rest.partition(chat.end)
    return system if opened and ended else None
