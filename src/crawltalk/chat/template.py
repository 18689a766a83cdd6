"""A model's own chat template: a program in Jinja that turns messages into one text, as `transformers` runs it.

It is a stranger's program, so it runs in Jinja's sandbox. What users write is no markup: a control token's name in a
message is made a text before the template sees it.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from crawltalk.chat.messages import Message, text_of
from crawltalk.chat.tool_calls import Tool
from crawltalk.core.errors import BadInput
from crawltalk.tokenizer import Tokenizer
from crawltalk.tokenizer.files import CONFIG, read_object
from crawltalk.tokenizer.rules import GUARD

_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_DEFAULT, _WITH_TOOLS = "default", "tool_use"
"""Names of templates where a model has several."""
_OPEN, _CLOSE = "\ufdd1", "\ufdd2"
"""Around what a template says that the assistant writes: characters that are none, like GUARD."""


class ChatTemplate:
    """The templates of a model by their names, and the tokens that they may name."""

    def __init__(self, sources: Mapping[str, str], tokens: Mapping[str, str]) -> None:
        self.sources, self.tokens = dict(sources), dict(tokens)
        self._compiled: dict[str, Any] = {}

    def encode(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        *,
        add_generation_prompt: bool = False,
    ) -> list[int]:
        """A conversation as ids. Raises BadInput if the template refuses it, or has no place for tools."""
        text = self._text(tokenizer, messages, tools, add_generation_prompt)
        return tokenizer.encode_markup(_unmarked(text))

    def encode_turns(
        self,
        tokenizer: Tokenizer,
        stop_ids: Container[int],
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        *,
        add_generation_prompt: bool = False,
    ) -> tuple[list[int], list[range]]:
        """A conversation as ids, and where the assistant's turns stand in them, with their ends.

        What `{% generation %}` encloses, if the template has it. Otherwise a turn begins behind the prompt that the
        template makes of the messages before it, and ends with the first of `stop_ids`: just what the model has to
        write. Raises BadInput as `encode` does, and if the template writes the messages before a turn in another way
        once it is there.
        """
        text = self._text(tokenizer, messages, tools, add_generation_prompt)
        plain = _unmarked(text)
        ids = tokenizer.encode_markup(plain)
        seams = _Seams(tokenizer, plain, ids)
        if _OPEN in text:
            return ids, [range(seams.before(start), seams.behind(end)) for start, end in _marked(text)]
        turns = []
        for index in [index for index, message in enumerate(messages) if message.role == "assistant"]:
            prompt = _unmarked(self._text(tokenizer, messages[:index], tools, True))
            if not plain.startswith(prompt):
                raise BadInput(
                    f"the model's own chat template writes what stands before message {index + 1} in another way once "
                    "that message is there, so it cannot be told what the model is to learn"
                )
            start = seams.before(len(prompt))
            ends = (end for end in range(start, len(ids)) if ids[end] in stop_ids)
            turns.append(range(start, next(ends, len(ids) - 1) + 1))
        return ids, turns

    def _text(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        add_generation_prompt: bool,
    ) -> str:
        guard = _Guard(tokenizer.special_tokens)
        rows = [guard(_row(message)) for message in messages]
        described = [guard(tool.described()) for tool in tools]
        text = self._render(rows, described or None, add_generation_prompt)
        if described and text == self._render(rows, None, add_generation_prompt):
            raise BadInput("this model's chat template has no place for tools; leave them out")
        return text

    @cached_property
    def takes_tools(self) -> bool:
        """Whether the template has a place for tools."""
        rows, tool = [_row(Message("user", "x"))], Tool(name="f").described()
        try:
            return self._render(rows, [tool], True) != self._render(rows, None, True)
        except BadInput:
            return False

    def _render(self, rows: list[Any], tools: list[Any] | None, add_generation_prompt: bool) -> str:
        name = _WITH_TOOLS if tools and _WITH_TOOLS in self.sources else _DEFAULT
        if name not in self.sources:
            raise BadInput(f"this model has no chat template named {_DEFAULT}, only {sorted(self.sources)}")
        try:
            if name not in self._compiled:
                self._compiled[name] = self._environment.from_string(self.sources[name])
            return self._compiled[name].render(
                messages=rows,
                tools=tools,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self.tokens,
            )
        except RecursionError:
            reason = "it calls itself for ever"
        except Exception as error:  # a stranger's template: it may fail in any way, and refuse by raising
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise BadInput(f"the model's own chat template refuses this conversation: {reason}")

    @cached_property
    def _environment(self) -> Any:
        """Jinja with what templates expect of `transformers`."""
        from jinja2 import nodes
        from jinja2.exceptions import TemplateError
        from jinja2.ext import Extension, loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        class Generation(Extension):
            """`{% generation %}` around what the assistant writes."""

            tags = {"generation"}  # noqa: RUF012 - as Jinja has it

            def parse(self, parser: Any) -> Any:
                line = next(parser.stream).lineno
                body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
                first, last = (nodes.Output([nodes.TemplateData(mark)]) for mark in (_OPEN, _CLOSE))
                return nodes.Scope([first, *body, last], lineno=line)

        def refuse(message: str) -> None:
            raise TemplateError(message)

        environment: Any = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        return environment


def load_template(folder: str | Path) -> ChatTemplate | None:
    """The templates of a model's folder, in each of the places where `transformers` has put them; None if there
    are none. Raises BadInput for damaged files.
    """
    folder = Path(folder)
    config = read_object(folder / CONFIG) if (folder / CONFIG).exists() else {}
    given = config.get("chat_template")
    if given is None and (folder / "chat_template.json").exists():
        given = read_object(folder / "chat_template.json").get("chat_template")
    sources: dict[str, Any] = {}
    if isinstance(given, str):
        sources = {_DEFAULT: given}
    elif isinstance(given, dict):
        sources = given
    elif isinstance(given, list):
        sources = {str(one.get("name")): one.get("template") for one in given if isinstance(one, dict)}
    files = {_DEFAULT: folder / "chat_template.jinja"}
    files |= {path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    for name, path in files.items():
        if path.exists():
            sources[name] = path.read_text(encoding="utf-8")
    if (given is not None and not sources) or not all(isinstance(one, str) for one in sources.values()):
        raise BadInput(f"{folder / CONFIG} has a chat_template that is no text; copy it again")
    return ChatTemplate(sources, _tokens(folder, config)) if sources else None


def _tokens(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    path = folder / "special_tokens_map.json"
    known = (read_object(path) if path.exists() else {}) | {
        name: value for name, value in config.items() if value is not None
    }
    tokens = {name: known.get(name) for name in _TOKENS}
    names = {
        name: token.get("content") if isinstance(token, dict) else token for name, token in tokens.items()
    }
    return {name: token for name, token in names.items() if isinstance(token, str)}


def _unmarked(text: str) -> str:
    return text.replace(_OPEN, "").replace(_CLOSE, "")


def _marked(text: str) -> Iterator[tuple[int, int]]:
    """The pieces between marks, by their places in the text without marks."""
    start = place = 0
    for piece in re.split(f"([{_OPEN}{_CLOSE}])", text):
        if piece == _OPEN:
            start = place
        elif piece == _CLOSE:
            yield start, place
        else:
            place += len(piece)


class _Seams:
    """Which token of a text stands at a character."""

    def __init__(self, tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> None:
        self.tokenizer, self.text, self.ids = tokenizer, text, ids
        controls = set(tokenizer.special_tokens.values())
        names = "|".join(map(re.escape, sorted(tokenizer.special_tokens, key=len, reverse=True)))
        self._ends = [found.end() for found in re.finditer(names, text)] if names else []
        self._controls = [place for place, index in enumerate(ids) if index in controls]

    def before(self, character: int) -> int:
        """The token that begins there, or within which it stands."""
        return self._find(character)[0]

    def behind(self, character: int) -> int:
        """The token behind that which ends there, or within which it stands."""
        place, inside = self._find(character)
        return place + inside

    def _find(self, character: int) -> tuple[int, bool]:
        """Tokens of a text are those of its pieces between control tokens, so only the last piece is cut again."""
        passed = bisect_right(self._ends, character)
        first = self._controls[passed - 1] + 1 if passed else 0
        begin = self._ends[passed - 1] if passed else 0
        piece = self.tokenizer.encode_markup(self.text[begin:character])
        same = 0
        while same < len(piece) and first + same < len(self.ids) and piece[same] == self.ids[first + same]:
            same += 1
        return first + same, same < len(piece)


class _Guard:
    """Makes control tokens' names in what users write texts."""

    def __init__(self, names: Iterable[str]) -> None:
        found = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True) if name)
        self.pattern = re.compile(found) if found else None

    def __call__(self, value: Any) -> Any:
        match value:
            case str() if self.pattern is not None:
                value = _unmarked(value)
                return self.pattern.sub(lambda found: found[0][:1] + GUARD + found[0][1:], value)
            case str():
                return _unmarked(value)
            case dict():
                return {self(key): self(item) for key, item in value.items()}
            case list():
                return [self(item) for item in value]
        return value


def _row(message: Message) -> dict[str, Any]:
    """A message as templates read it: its text, and the arguments of calls as objects."""
    row: dict[str, Any] = {"role": message.role, "content": text_of(message)}
    if message.tool_calls:
        row["tool_calls"] = [_call(msgspec.to_builtins(call)) for call in message.tool_calls]
    return row | {
        key: value for key in ("tool_call_id", "name") if (value := getattr(message, key)) is not None
    }


def _call(call: dict[str, Any]) -> dict[str, Any]:
    try:
        arguments = json.loads(call["function"]["arguments"])
    except ValueError:
        return call
    return call | {"function": call["function"] | {"arguments": arguments}}


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
