"""Whether a model can learn from a conversation, and which of its tokens it learns.

A mask without a token to learn, or without the ends of turns, trains without an error and teaches nothing, or never
to stop. So each conversation is checked before and after it is rendered, and one that fails is refused with the
reason.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

from crawltalk.chat.messages import Conversation, Message, text_of
from crawltalk.chat.render import ChatRenderer, Rendered
from crawltalk.chat.tool_calls import as_tools
from crawltalk.core.errors import BadInput
from crawltalk.core.printable import printable


class Lesson(NamedTuple):
    """A conversation as a model learns it."""

    rendered: Rendered
    conversation: Conversation
    """What of it is rendered: up to the last learned turn that fits."""
    cut: int = 0
    """Messages at its end that did not fit into the context."""


def make_lesson(conversation: Conversation, chat: ChatRenderer, context: int) -> Lesson:
    """A conversation as ids and mask. What follows the assistant's last learned turn teaches nothing and is left out;
    a conversation that is longer than `context` is cut behind the last turn of the assistant that fits.

    Raises BadInput, with the reason, as `check_turns` does, if not even the first turn to learn fits, and if what
    would be learned is not just the assistant's turns with their ends.
    """
    check_turns(conversation)
    learned = [
        index
        for index, message in enumerate(conversation.messages)
        if message.role == "assistant" and index not in conversation.unlearned
    ]
    if not learned:
        raise BadInput("it has no turn of the assistant to learn")
    lengths: dict[int, Rendered] = {}

    def fits(index: int) -> bool:
        lengths[index] = _render(conversation, chat, index + 1)
        return len(lengths[index].ids) <= context

    last = len(learned) - 1
    if not fits(learned[last]):  # the longest beginning that fits
        low, last = -1, last - 1
        while low < last:
            middle = (low + last + 1) // 2
            low, last = (middle, last) if fits(learned[middle]) else (low, middle - 1)
        if last < 0:
            needed = len(_render(conversation, chat, learned[0] + 1).ids)
            raise BadInput(
                f"it needs {needed} tokens up to the end of the first answer, and the context has {context}"
            )
    end = learned[last] + 1
    rendered = lengths[learned[last]]
    check_mask(rendered, chat, last + 1)
    kept = Conversation(
        messages=conversation.messages[:end],
        source=conversation.source,
        tools=conversation.tools,
        unlearned=[index for index in conversation.unlearned if index < end],
    )
    return Lesson(rendered, kept, learned[-1] + 1 - end)


def _render(conversation: Conversation, chat: ChatRenderer, end: int) -> Rendered:
    return chat.render(
        conversation.messages[:end],
        tools=as_tools(conversation.tools),
        unlearned=conversation.unlearned,
    )


def check_turns(conversation: Conversation) -> None:
    """Raise BadInput for the first message that cannot stand where it stands: a system message that is not the
    first, a turn of a role whose turn it is not, an empty turn of the assistant, a call of a function that the
    conversation does not list or whose arguments are no JSON object, a result of no call; and for images and sounds.
    """
    names = {tool.name for tool in as_tools(conversation.tools)}
    before: Message | None = None
    pending: list[str | None] = []
    for number, message in enumerate(conversation.messages, 1):
        where, role = f"message {number}", message.role
        text = text_of(message)
        previous = before.role if before is not None else None
        if role == "system" and previous == "system":
            raise BadInput(f"{where}: there are two system messages")
        if role == "system" and previous is not None:
            raise BadInput(f"{where}: a system message stands at the front only")
        if role == "user" and previous in ("user", "tool"):
            raise BadInput(
                f"{where}: the user speaks after the {previous}, where the assistant should answer"
            )
        if role == "assistant" and previous not in ("user", "tool"):
            raise BadInput(f"{where}: the assistant speaks {_after(previous)}, where the user should")
        if role == "tool" and not pending:
            raise BadInput(f"{where}: the result of a tool, and no call waits for one")
        if role != "tool" and pending:
            raise BadInput(f"{where}: {len(pending)} calls before it have no result")
        if role == "tool":
            _take(pending, message.tool_call_id, where)
        if message.tool_calls and role != "assistant":
            raise BadInput(f"{where}: only the assistant calls tools, not the {role}")
        if role == "assistant":
            if not text.strip() and not message.tool_calls:
                raise BadInput(f"{where}: the assistant says nothing and calls nothing")
            pending = [call.id for call in message.tool_calls]
            _check_calls(message, names, where)
        before = message


def _after(role: str | None) -> str:
    return "first" if role is None else f"after the {role}"


def _take(pending: list[str | None], given: str | None, where: str) -> None:
    """Strike out the call that a result answers; without an id, the first one."""
    if given is not None and any(pending) and given not in pending:
        raise BadInput(f"{where}: it answers the call {given!r:.40}, which nobody made")
    pending.remove(given) if given in pending else pending.pop(0)


def _check_calls(message: Message, names: set[str], where: str) -> None:
    for call in message.tool_calls:
        name, arguments = call.function.name, call.function.arguments
        if name not in names:
            listed = ", ".join(sorted(names)) or "none"
            raise BadInput(f"{where}: it calls {printable(name)!r}, and its tools are: {printable(listed)}")
        try:
            parsed = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict):
            raise BadInput(f"{where}: the arguments of {name!r} are no JSON object: {printable(arguments)}")


def check_mask(rendered: Rendered, chat: ChatRenderer, turns: int) -> None:
    """Raise BadInput unless the mask has `turns` turns of the assistant, each with its end."""
    ids, mask = rendered
    if not any(mask[1:]):
        raise BadInput("it has no token to learn")
    spans = list(learned_spans(mask))
    if len(spans) != turns:
        raise BadInput(f"the chat template writes {len(spans)} of its {turns} learned turns")
    for number, span in enumerate(spans, 1):
        stops = [place for place in span if ids[place] in chat.stop_ids]
        if not stops:
            raise BadInput(f"the end of its learned turn {number} is not learned, so a model would not stop")
        if chat.tokenizer.decode(ids[stops[0] + 1 : span.stop]).strip():
            raise BadInput(f"its learned turn {number} goes on behind its end")


def learned_spans(mask: Sequence[bool]) -> list[range]:
    """Runs of tokens that are learned."""
    edges = [place for place in range(len(mask) + 1) if _at(mask, place - 1) != _at(mask, place)]
    return [range(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def _at(mask: Sequence[bool], place: int) -> bool:
    return 0 <= place < len(mask) and mask[place]
