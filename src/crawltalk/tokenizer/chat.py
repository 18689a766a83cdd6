"""How a conversation becomes one token sequence: pieces that one renderer (`Tokenizer.render`) puts together.

Control tokens are written as ids and texts as text, so that no text can ever open or end a turn.
"""

import re
from collections.abc import Container
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ChatFormat:
    """`start role role_end gap content end after`, for each turn."""

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

    def template(self) -> str:
        """The same format as a Jinja chat template, for `transformers`."""
        start, end = (
            f"{self.start}{{{{ message['role'] }}}}{self.role_end or ''}{_quote(self.gap)}",
            self.end + _quote(self.after),
        )
        opening = f"{self.start}assistant{self.role_end or ''}{_quote(self.gap)}"
        system = ""
        if self.default_system is not None:
            first = start.replace("{{ message['role'] }}", "system")
            system = f"{{% if messages[0]['role'] != 'system' %}}{first}{_quote(self.default_system)}{end}{{% endif %}}"
        return (
            f"{self.begin or ''}{system}"
            f"{{% for message in messages %}}{start}{{{{ message['content'] }}}}{end}{{% endfor %}}"
            f"{{% if add_generation_prompt %}}{opening}{{% endif %}}"
        )


def _quote(text: str) -> str:
    """Text as a Jinja expression: a bare line break behind a tag would be swallowed."""
    return "{{ " + repr(text) + " }}" if text else ""


OURS = ChatFormat(start="<|im_start|>", role_end="<|im_sep|>", gap="", end="<|im_end|>")
CHATML = ChatFormat(start="<|im_start|>", role_end=None, gap="\n", end="<|im_end|>", after="\n")
LLAMA3 = ChatFormat(
    start="<|start_header_id|>",
    role_end="<|end_header_id|>",
    gap="\n\n",
    end="<|eot_id|>",
    begin="<|begin_of_text|>",
)


def detect(specials: Container[str]) -> ChatFormat | None:
    """The format that a vocabulary's control tokens are made for."""
    for chat in (OURS, LLAMA3, CHATML):
        if chat.start in specials and (chat.role_end is None or chat.role_end in specials):
            return chat
    return None


def default_system(chat: ChatFormat, template: str) -> str | None:
    """The system message that a model's Jinja template writes when a conversation has none, as SmolLM2's and
    Qwen2.5's do.
    """
    line_break = r"(?:\n|\\n)"  # as it is, or escaped in a Jinja string
    gap = line_break * len(chat.gap)
    found = re.search(rf"{re.escape(chat.start)}system{gap}([^<>{{}}'\"]+){re.escape(chat.end)}", template)
    return found[1] if found and chat.role_end is None else None
