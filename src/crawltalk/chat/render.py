"""The one rendering of a conversation: messages to token ids, with a loss mask.

Control tokens are written as ids and texts as text, so that no text can open or end a turn, a tool call or a
tool's result.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, zip_longest
from pathlib import Path
from typing import NamedTuple

from crawltalk.chat.format import ChatFormat, detect, load_format
from crawltalk.chat.messages import (
    PLACES,
    ContentPart,
    Message,
    MessageLike,
    TextPart,
    as_messages,
    text_of,
    unread,
)
from crawltalk.chat.template import ChatTemplate, load_template
from crawltalk.chat.tool_calls import Control, Tool, tools_description, written_call, written_result
from crawltalk.core.errors import BadInput, ContextOverflow
from crawltalk.tokenizer import Tokenizer

REPLY_FRACTION = 4
"""One part in so many of the context is left free for the reply."""


class Rendered(NamedTuple):
    """A conversation as token ids."""

    ids: list[int]
    loss_mask: list[bool]
    """Of each id, whether the assistant is to learn it: its texts, its calls and its ends of turns."""


class ChatRenderer:
    """A tokenizer and the chat format that conversations are written in with it."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        format: ChatFormat | None = None,
        template: ChatTemplate | None = None,
        notice: str | None = None,
        *,
        ours: bool | None = None,
    ) -> None:
        """`format` None: the one that the vocabulary's control tokens are made for, if any. `template`: the model's
        own, which is used instead. `ours` None: whether we made the vocabulary.
        """
        self._ours = tokenizer.rules is None if ours is None else ours
        self.tokenizer, self.template = tokenizer, template
        self.format = format if format is not None else detect(tokenizer.special_tokens)
        end = {tokenizer.special_tokens[self.format.end]} if self.format is not None else set()
        self.stop_ids = frozenset({*tokenizer.end_ids, *end})
        """What ends a reply."""
        self.notice = notice
        """What a user should know of how conversations are written, if anything."""
        self.places: Mapping[str, int] = {}
        """Control tokens that stand for an image or a sound, and how often each is written for one; none: the model
        reads text only.
        """

    @property
    def chats(self) -> bool:
        """Whether there is a way to write conversations."""
        return self.format is not None or self.template is not None

    @property
    def begin(self) -> tuple[int, ...]:
        """The ids in front of a text: what the folder says, or, in models of ours, the separator of documents."""
        return (self.tokenizer.eot,) if self._ours else self.tokenizer.begin

    @classmethod
    def load(cls, path: str | Path) -> "ChatRenderer":
        """From a model's folder, or from whatever else `Tokenizer.load` reads. Raises as it does."""
        path, tokenizer = Path(path), Tokenizer.load(path)
        folder = path if path.is_dir() else path.parent
        form, ours = load_format(folder, tokenizer.special_tokens)
        template = None if ours else load_template(folder)
        notice = None
        if form is not None and template is None and tokenizer.rules is not None:
            notice = (
                f"{folder} has no chat template: turns are written as its control tokens suggest, from {form.start} to "
                f"{form.end}"
            )
        return cls(tokenizer, form, template, notice, ours=ours or tokenizer.rules is None)

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer's files, with the chat template in tokenizer_config.json."""
        if self.template is not None:
            names = [{"name": name, "template": text} for name, text in self.template.sources.items()]
            self.tokenizer.save(folder, {**self.template.tokens, "chat_template": names})
        else:
            self.tokenizer.save(folder, self.format.config() if self.format is not None else {})

    def encode_chat(
        self,
        messages: Sequence[MessageLike],
        *,
        tools: Sequence[Tool] = (),
        add_generation_prompt: bool = False,
    ) -> list[int]:
        """`render` without the loss mask."""
        if self.template is not None:
            return self.template.encode(
                self.tokenizer, as_messages(messages), tools, add_generation_prompt=add_generation_prompt
            )
        return self.render(messages, tools=tools, add_generation_prompt=add_generation_prompt).ids

    def render(
        self,
        messages: Sequence[MessageLike],
        *,
        tools: Sequence[Tool] = (),
        add_generation_prompt: bool = False,
        unlearned: Collection[int] = (),
    ) -> Rendered:
        """A conversation as ids. The system message describes `tools`. `add_generation_prompt` opens the
        assistant's turn at the end, as in `transformers`. `unlearned`: positions of the assistant's messages that
        the loss does not count.

        Raises BadInput if the model has no chat format, for an image or a sound, and for a dict that is no
        message; for a model with a template of its own as `ChatTemplate.encode_turns` does.
        """
        messages = as_messages(messages)
        answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
        if self.template is not None:
            ids, turns = self.template.encode_turns(
                self.tokenizer, self.stop_ids, messages, tools, add_generation_prompt=add_generation_prompt
            )
            if unlearned and len(turns) != len(answers):
                raise BadInput("the model's own chat template does not write each answer as a turn")
            loss_mask = [False] * len(ids)
            for index, turn in zip_longest(answers, turns):
                if turn is not None and index not in unlearned:
                    loss_mask[turn.start : turn.stop] = [True] * len(turn)
            return Rendered(ids, loss_mask)
        chat, answer = self._chat(), iter(answers)
        ids = [self.tokenizer.special_tokens[chat.begin]] if chat.begin is not None else []
        loss_mask = [False] * len(ids)
        for role, pieces in _turns(chat, messages, tools, self.places):
            head, content, after = self._turn(chat, role, pieces)
            ids += [*head, *content, *after]
            learned = role == "assistant" and next(answer) not in unlearned
            loss_mask += [*(False for _ in head), *(learned for _ in content), *(False for _ in after)]
        if add_generation_prompt:
            head = self._open_turn(chat, "assistant")
            ids += head
            loss_mask += [False] * len(head)
        return Rendered(ids, loss_mask)

    def fit(
        self,
        messages: Sequence[MessageLike],
        context: int,
        *,
        tools: Sequence[Tool] = (),
        reply: int | None = None,
    ) -> tuple[list[int], int]:
        """The prompt of a reply, for a model that reads `context` tokens, and how many of the oldest messages
        were left out to make it fit. A quarter of the context stays free for the reply, or `reply` tokens if it
        needs fewer.

        A system message at the front stays, and results of tools stay together. Raises ContextOverflow if tools,
        system message and last turn alone are too long.
        """
        if self.template is not None:
            return self._fit_by_template(as_messages(messages), context, tools, reply)
        chat, messages = self._chat(), as_messages(messages)
        system = [message for message in messages[:1] if message.role == "system"]
        rest = messages[len(system) :]
        room = context - _left_free(context, reply)
        size, kept = len(self.encode_chat(system, tools=tools, add_generation_prompt=True)), 0
        turns = _grouped(rest)
        for turn in reversed(turns):  # from the end: a long history costs no more than what fits
            size += sum(map(len, self._turn(chat, *_as_turn(turn, self.places))))
            if size > room:
                break
            kept += len(turn)
        if size > room and not kept:
            raise ContextOverflow(self._overflow(system, turns[-1] if turns else [], tools, context, room))
        dropped = len(rest) - kept
        return self.encode_chat([*system, *rest[dropped:]], tools=tools, add_generation_prompt=True), dropped

    def _fit_by_template(
        self, messages: Sequence[Message], context: int, tools: Sequence[Tool], reply: int | None
    ) -> tuple[list[int], int]:
        """`fit` where only the whole text tells its length: the conversation begins with a later turn of the user,
        until it fits.
        """
        system = [message for message in messages[:1] if message.role == "system"]
        rest = messages[len(system) :]
        room = context - _left_free(context, reply)
        later = [index for index, message in enumerate(rest) if index and message.role == "user"]
        ids: list[int] = []
        for dropped in (0, *later):
            ids = self.encode_chat([*system, *rest[dropped:]], tools=tools, add_generation_prompt=True)
            if len(ids) <= room:
                return ids, dropped
        last = list(rest[later[-1] if later else 0 :])
        raise ContextOverflow(self._overflow(system, last, tools, context, room))

    def _overflow(
        self, system: list[Message], last: list[Message], tools: Sequence[Tool], context: int, room: int
    ) -> str:
        """Which part of the least prompt takes the room, and what to do. The beginning of the sentence is what
        clients look for.
        """
        tokens = {
            "tools": len(self.encode_chat(system, tools=tools)) - len(self.encode_chat(system)),
            "system message": len(self.encode_chat(system)) if system else 0,
            "last message": len(self.encode_chat(last)),
        }
        needed = len(self.encode_chat([*system, *last], tools=tools, add_generation_prompt=True))
        advice = {
            "tools": "offer fewer tools or describe them in fewer words",
            "system message": "make the system message shorter",
            "last message": "make it shorter",
        }
        listed = ", ".join(f"{name}: {count} tokens" for name, count in tokens.items() if count)
        return (
            f"This model's maximum context length is {context} tokens, of which {context - room} are left for the "
            f"reply; this needs {needed} ({listed}): {advice[max(tokens, key=tokens.__getitem__)]}"
        )

    def _chat(self) -> ChatFormat:
        if self.format is None:
            raise BadInput("this is a base model: it has no chat format; use: crawltalk generate")
        return self.format

    def _turn(
        self, chat: ChatFormat, role: str, pieces: Iterable[str]
    ) -> tuple[list[int], list[int], list[int]]:
        """The ids that open a turn, those of its content and its end, and those that follow."""
        content = self._encode([*pieces, Control(chat.end)])
        return self._open_turn(chat, role), content, self._encode_text(chat.after)

    def _open_turn(self, chat: ChatFormat, role: str) -> list[int]:
        role_end = [] if chat.role_end is None else [Control(chat.role_end)]
        return self._encode([Control(chat.start), role, *role_end, chat.gap])

    def _encode(self, pieces: Iterable[str]) -> list[int]:
        """Texts as text, control tokens as ids; spelled as text where the vocabulary has no such token."""
        ids: list[int] = []
        text = ""
        for piece in pieces:
            index = self._control_id(piece) if isinstance(piece, Control) else None
            if index is None:
                text += piece
            else:
                ids += [*self._encode_text(text), index]
                text = ""
        return ids + self._encode_text(text)

    def _encode_text(self, text: str) -> list[int]:
        return self.tokenizer.encode(text) if text else []

    def _control_id(self, name: str) -> int | None:
        """Qwen's vocabularies have `<tool_call>` among the ordinary tokens."""
        index = self.tokenizer.special_tokens.get(name)
        return index if index is not None else self.tokenizer.vocab.get(name.encode())


def _left_free(context: int, reply: int | None) -> int:
    """Tokens of the context that are kept for the reply."""
    free = max(1, context // REPLY_FRACTION)
    return free if reply is None else min(free, max(1, reply))


_Turn = tuple[str, list[str]]
"""A role, and texts and control tokens."""


def _turns(
    chat: ChatFormat, messages: Sequence[Message], tools: Sequence[Tool], places: Mapping[str, int]
) -> Iterator[_Turn]:
    """The turns of a conversation, with the system message that it may lack."""
    system = chat.default_system
    if messages and messages[0].role == "system":
        system, messages = text_of(messages[0]), messages[1:]
    if tools:
        yield "system", [f"{system}\n\n" if system else "", *tools_description(tools, chat.tools_form)]
    elif system is not None:
        yield "system", [system]
    for turn in _grouped(messages):
        yield _as_turn(turn, places)


def _grouped(messages: Sequence[Message]) -> list[list[Message]]:
    """The messages of each turn: one, or the results of several calls."""
    groups = groupby(enumerate(messages), lambda item: -1 if item[1].role == "tool" else item[0])
    return [[message for _, message in group] for _, group in groups]


def _as_turn(turn: Sequence[Message], places: Mapping[str, int]) -> _Turn:
    """The role and the pieces of a turn."""
    if turn[0].role == "tool":
        return "user", _lines(written_result(text_of(message)) for message in turn)
    [message] = turn
    if message.role == "user" and not isinstance(message.content, str):
        return "user", [piece for part in message.content for piece in _part(part, places)]
    text = text_of(message)
    calls = [written_call(call.function) for call in message.tool_calls]
    return message.role, _lines([*([[text]] if text else []), *calls])


def _part(part: ContentPart, places: Mapping[str, int]) -> list[str]:
    """A text; or the places of an image or a sound. Raises BadInput if the model does not read these."""
    if isinstance(part, TextPart):
        return [part.text]
    name = PLACES[type(part)]
    if name not in places:
        raise BadInput(unread(part))
    return [Control(name)] * places[name]


def _lines(blocks: Iterable[list[str]]) -> list[str]:
    """Blocks, with a line break between them."""
    lines: list[str] = []
    for block in blocks:
        lines += ["\n", *block] if lines else block
    return lines
