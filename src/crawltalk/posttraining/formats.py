"""Readers of the field's files of conversations and preferences: JSONL, JSON and Parquet in, `Conversation` and
`Preference` out.

The form of a row is recognised by its fields, or told. A row that is not what its form asks for is set aside with
its number and the reason, and the rows around it are read. Whether a model can learn from a conversation is another
question (`posttraining.masks`).
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from crawltalk.chat.messages import (
    Conversation,
    FunctionCall,
    Message,
    Preference,
    ToolCall,
    as_messages,
)
from crawltalk.core.errors import BadInput, BadRecipe
from crawltalk.core.printable import printable
from crawltalk.core.rows import Fields, read_rows, without_none

Item = TypeVar("Item")


class Row(NamedTuple, Generic[Item]):
    """What a row of a file holds."""

    number: int
    """The line of a JSONL file, the position in a list or a table; the first is 1."""
    items: list[Item]
    """One conversation or pair, or those of a tree."""
    reason: str | None = None
    """Why it was set aside."""
    cut: int = 0
    """Branches of a tree that ended with a user's turn and were cut behind the assistant's last."""


def read_conversations(path: str | Path, form: str | None = None) -> Iterator[Row[Conversation]]:
    """The rows of a file as conversations; `form` is one of CONVERSATIONS, recognised in each row if absent.

    Raises MissingInput, BadRecipe for an unknown form, and BadInput for a file that is none of these or is damaged.
    """
    return _read(Path(path), form, CONVERSATIONS, "conversation")


def read_preferences(path: str | Path, form: str | None = None) -> Iterator[Row[Preference]]:
    """The rows of a file as pairs of a chosen and a rejected continuation; otherwise as `read_conversations`."""
    return _read(Path(path), form, PREFERENCES, "preference")


# --- rows --------------------------------------------------------------------------------------------------------


class Form(NamedTuple, Generic[Item]):
    """One way of the field to write a row."""

    fields: str
    """What its rows have, for people."""
    fits: Callable[[Fields], bool]
    read: Callable[[Fields, str], list[Item] | tuple[list[Item], int]]
    """(row, source) -> items, and how many of a tree's branches were cut. Raises BadInput."""


def _read(path: Path, form: str | None, forms: Mapping[str, Form[Item]], what: str) -> Iterator[Row[Item]]:
    if form is not None and form not in forms:
        raise BadRecipe(f"there is no form {form!r} of {what}s; forms: {', '.join(forms)}")
    for number, fields in read_rows(path, "conversations"):
        try:
            if isinstance(fields, str):
                raise BadInput(fields)
            chosen = next(
                (one for name, one in forms.items() if form in (None, name) and one.fits(fields)), None
            )
            if chosen is None:
                known = "; ".join(
                    f"{name}: {one.fields}" for name, one in forms.items() if form in (None, name)
                )
                raise BadInput(
                    f"it has the fields {', '.join(map(str, fields))[:100]}, and known are {known}"
                )
            read = chosen.read(fields, path.name)
            items, cut = read if isinstance(read, tuple) else (read, 0)
            yield Row(number, items, cut=cut)
        except BadInput as error:
            yield Row(number, [], printable(str(error), 400))


# --- conversations -----------------------------------------------------------------------------------------------

_ROLES = {"developer": "system", "function": "tool"}
"""Names of roles in OpenAI's API, other than those of `Message`."""
_FIELDS = ("role", "content", "tool_calls", "tool_call_id", "name")


def _messages(given: Any) -> list[Message]:
    """Messages in OpenAI's or Hugging Face's form. Fields that are no part of what a model reads are left out."""
    if not isinstance(given, list) or not given:
        raise BadInput("its messages are no list with a message in it")
    rows = []
    for index, message in enumerate(given):
        if not isinstance(message, dict) or "role" not in message:
            raise BadInput(f"message {index + 1} has no role")
        role = _ROLES.get(str(message["role"]), message["role"])
        row = {key: message[key] for key in _FIELDS if key in message} | {"role": role}
        if isinstance(row.get("content"), list):
            row["content"] = [without_none(part) for part in row["content"]]
        if not row.get("tool_calls"):
            row.pop("tool_calls", None)
        if role == "assistant" and row.get("content") is None:
            row["content"] = ""
        rows.append(row)
    return as_messages(rows)


def _unlearned(given: Any) -> list[int]:
    """Positions of the assistant's messages with OpenAI's `weight: 0`."""
    return [
        index
        for index, message in enumerate(given)
        if isinstance(message, dict) and message.get("weight") == 0 and message.get("role") == "assistant"
    ]


def _tools(row: Fields) -> list[dict[str, Any]]:
    """The functions of a row: a list of objects, or such a list as a text."""
    given = row.get("tools") or []
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError as error:
            raise BadInput(f"its tools are no JSON: {error}") from None
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise BadInput("its tools are no list of objects")
    return given


def _from_messages(row: Fields, source: str) -> list[Conversation]:
    given = row["messages"] if "messages" in row else row["conversations"]
    return [
        Conversation(messages=_messages(given), source=source, tools=_tools(row), unlearned=_unlearned(given))
    ]


_SPEAKERS = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "observation": "tool",
    "tool": "tool",
}


def _from_sharegpt(row: Fields, source: str) -> list[Conversation]:
    """Turns of `from` and `value`, as Vicuna's; `function_call` and `observation` as LLaMA-Factory has them."""
    messages = [Message("system", row["system"])] if isinstance(row.get("system"), str) else []
    for index, turn in enumerate(row["conversations"]):
        speaker, value = (turn.get("from"), turn.get("value")) if isinstance(turn, dict) else (None, None)
        if not isinstance(value, str):
            raise BadInput(f"turn {index + 1} has no value")
        if speaker == "function_call":
            messages.append(Message("assistant", "", tool_calls=_sharegpt_calls(value, index)))
        elif speaker in _SPEAKERS:
            messages.append(Message(_SPEAKERS[speaker], value))  # type: ignore[arg-type] - one of the roles
        else:
            raise BadInput(
                f"turn {index + 1} is from {speaker!r}; known: {', '.join(_SPEAKERS)}, function_call"
            )
    return [Conversation(messages=messages, source=source, tools=_tools(row))]


def _sharegpt_calls(value: str, index: int) -> list[ToolCall]:
    try:
        given = json.loads(value)
        calls = given if isinstance(given, list) else [given]
        return [
            ToolCall(FunctionCall(call["name"], json.dumps(call.get("arguments", {}), ensure_ascii=False)))
            for call in calls
        ]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BadInput(f"turn {index + 1} is no call: an object with a name and arguments") from None


def _instruction(row: Fields) -> list[Message]:
    """The user's turn of a row with an instruction, behind its system message and history if it has these."""
    context = row.get("input") or row.get("context") or ""
    texts = [row.get("system") or "", row["instruction"], context]
    if not all(isinstance(text, str) for text in texts):
        raise BadInput("its instruction, input or system is no text")
    system, question, context = texts
    messages = [Message("system", system)] if system else []
    for pair in row.get("history") or []:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise BadInput("its history is no list of [question, answer]")
        messages += [Message("user", pair[0]), Message("assistant", pair[1])]
    return [*messages, Message("user", f"{question}\n\n{context}" if context.strip() else question)]


def _from_instruction(row: Fields, source: str) -> list[Conversation]:
    """Dolly's and Alpaca's rows; the context stands below the instruction, an empty line between them."""
    answer = row["output"] if "output" in row else row["response"]
    return [Conversation(messages=[*_instruction(row), _answer(answer)], source=source)]


def _answer(given: Any) -> Message:
    if not isinstance(given, str):
        raise BadInput(f"its answer is no text: {given!r:.40}")
    return Message("assistant", given)


def _from_completion(row: Fields, source: str) -> list[Conversation]:
    """TRL's rows. What stands in the prompt is read only, the assistant's messages there, too; of a completion with
    several turns the assistant's are learned.
    """
    if isinstance(row["prompt"], str):
        messages = [Message("user", row["prompt"]), _answer(row["completion"])]
        return [Conversation(messages=messages, source=source)]
    prompt, completion = _messages(row["prompt"]), _messages(row["completion"])
    unlearned = [index for index, message in enumerate(prompt) if message.role == "assistant"]
    return [
        Conversation(messages=[*prompt, *completion], source=source, tools=_tools(row), unlearned=unlearned)
    ]


_OASST_ROLES = {"prompter": "user", "assistant": "assistant"}


def _from_tree(row: Fields, source: str) -> tuple[list[Conversation], int]:
    """Open Assistant's trees: one conversation for each branch from the root to a leaf.

    A branch that ends with a prompter is cut behind the assistant's last message, and left out where another branch
    goes on from there. Messages that were deleted or failed review are left out with what follows them.
    """
    conversations: list[Conversation] = []
    cut = 0

    def descend(node: Fields, before: list[Message]) -> bool:
        """Whether a conversation came of it."""
        nonlocal cut
        messages = [*before, Message(_OASST_ROLES[node["role"]], node["text"])]  # type: ignore[arg-type]
        replies = _replies(node)
        cut += not replies and node["role"] == "prompter"
        found = [descend(reply, messages) for reply in replies]  # all of them: `any` alone would stop
        if not any(found) and node["role"] == "assistant":
            conversations.append(Conversation(messages=messages, source=source))
            return True
        return any(found)

    _in_tree(lambda: descend(_root(row), []))
    return conversations, cut


def _root(row: Fields) -> Fields:
    return row["prompt"] if isinstance(row.get("prompt"), dict) else row


def _replies(node: Fields) -> list[Fields]:
    return [
        one for one in node["replies"] if not one.get("deleted") and one.get("review_result") is not False
    ]


def _in_tree(walk: Callable[[], object]) -> None:
    """Raises BadInput for a tree that is none."""
    try:
        walk()
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(f"the tree has a message without role, text or replies: {error!r:.80}") from None


def _has_messages(row: Fields) -> bool:
    if "messages" in row:
        return isinstance(row["messages"], list)
    turns = row.get("conversations")
    return isinstance(turns, list) and isinstance(first := next(iter(turns), None), dict) and "role" in first


def _is_tree(row: Fields) -> bool:
    root = _root(row)
    return "replies" in root and "role" in root


CONVERSATIONS: dict[str, Form[Conversation]] = {
    "messages": Form("messages, and tools if there are any", _has_messages, _from_messages),
    "sharegpt": Form(
        "conversations of from and value",
        lambda row: isinstance(row.get("conversations"), list),
        _from_sharegpt,
    ),
    "oasst": Form("a tree of replies", _is_tree, _from_tree),
    "completion": Form(
        "prompt, completion", lambda row: {"prompt", "completion"} <= set(row), _from_completion
    ),
    "instruction": Form(
        "instruction, input or context, and output or response",
        lambda row: "instruction" in row and ("output" in row or "response" in row),
        _from_instruction,
    ),
}
"""Name -> form: OpenAI's and Hugging Face's messages, ShareGPT, Open Assistant, TRL, and Alpaca with Dolly."""


# --- preferences -------------------------------------------------------------------------------------------------


_DIVERGED = "the sides differ before the last turn of the user"


def _pair(
    prompt: list[Message], chosen: list[Message], rejected: list[Message], source: str
) -> list[Preference]:
    """A pair whose sides may repeat the prompt, as UltraFeedback's do: the question is not doubled. What both sides
    begin with belongs to the prompt.
    """
    if prompt == chosen or chosen[: len(prompt)] == prompt == rejected[: len(prompt)]:
        prompt = []  # HuggingFaceH4's rows have the chosen conversation once more as their `messages`
    if chosen == rejected:
        raise BadInput("both sides are the same")
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    prompt, chosen, rejected = prompt + chosen[:shared], chosen[shared:], rejected[shared:]
    sides = {"chosen": chosen, "rejected": rejected}
    if any(message.role == "user" for side in sides.values() for message in side):
        raise BadInput(_DIVERGED)
    for name, side in sides.items():
        if not side or not (side[-1].tool_calls or str(side[-1].content).strip()):
            raise BadInput(f"the {name} reply is empty")
        if side[-1].role != "assistant":
            raise BadInput(f"the {name} side does not end with the assistant")
    if not prompt or prompt[-1].role == "assistant":
        raise BadInput("nothing of the user stands before the replies")
    return [Preference(messages=prompt, chosen=chosen, rejected=rejected, source=source)]


def _from_pair(row: Fields, source: str) -> list[Preference]:
    """TRL's rows: sides as texts or as messages, the prompt beside them or within them."""
    prompt, sides = row.get("prompt", row.get("messages")), [row["chosen"], row["rejected"]]
    if all(isinstance(side, dict) for side in sides):  # one message a side
        sides = [[side] for side in sides]
    if all(isinstance(side, str) for side in sides):
        if isinstance(prompt, str) and not prompt.startswith(_HH_LABELS):
            messages = [Message("user", prompt)]
        elif isinstance(prompt, list):
            messages = _messages(prompt)
        elif "instruction" in row:
            messages = _instruction(row)
        else:
            return _from_hh(row, source)
        return _pair(messages, [_answer(sides[0])], [_answer(sides[1])], source)
    chosen, rejected = (_messages(side) for side in sides)
    if isinstance(prompt, str):
        first = next((message for message in chosen if message.role != "system"), chosen[0])
        inside = first.role == "user" and first.content == prompt
        messages = [] if inside else [Message("user", prompt)]
    else:
        messages = _messages(prompt) if prompt is not None else []
    return _pair(messages, chosen, rejected, source)


def _from_openai_pair(row: Fields, source: str) -> list[Preference]:
    """OpenAI's rows for preference tuning."""
    given = row["input"]
    prompt = _messages(given.get("messages") if isinstance(given, dict) else None)
    return _pair(prompt, _messages(row["preferred_output"]), _messages(row["non_preferred_output"]), source)


_HH_LABELS = ("\n\nHuman:", "\n\nAssistant:")
_HH_TURN = re.compile(r"\n\n(Human|Assistant):")
_HH_INSIDE = re.compile(r"(?<!\S)(?:Human|Assistant):")


def _from_hh(row: Fields, source: str) -> list[Preference]:
    """Anthropic's helpful and harmless rows: whole conversations as text, each turn behind its speaker's label.

    Some have a label in the middle of a turn: one text in which two speak.
    """
    prompt = row["prompt"] if isinstance(row.get("prompt"), str) else ""
    chosen, rejected = (_hh_messages(prompt + row[side]) for side in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise BadInput(_DIVERGED)
    if any(_HH_INSIDE.search(str(message.content)) for message in (*chosen, rejected[-1])):
        raise BadInput("a turn holds a speaker's label")
    return _pair([], chosen, rejected, source)


def _hh_messages(text: str) -> list[Message]:
    before, *parts = _HH_TURN.split(text)
    if before.strip() or not parts:
        raise BadInput(r'it does not begin with "\n\nHuman:"')
    return [
        Message("user" if speaker == "Human" else "assistant", said.strip())
        for speaker, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def _from_ranks(row: Fields, source: str) -> list[Preference]:
    """Open Assistant's trees: a pair of any two replies to one message that people ranked apart. Only children have
    no rank, and make no pair.
    """
    pairs: list[Preference] = []

    def descend(node: Fields, before: list[Message]) -> None:
        messages = [*before, Message(_OASST_ROLES[node["role"]], node["text"])]  # type: ignore[arg-type]
        replies = _replies(node)
        ranked = [one for one in replies if one["role"] == "assistant" and one.get("rank") is not None]
        for better, worse in combinations(sorted(ranked, key=lambda one: one["rank"]), 2):
            if better["rank"] < worse["rank"] and better["text"] != worse["text"]:
                chosen, rejected = ([Message("assistant", one["text"])] for one in (better, worse))
                pairs.append(Preference(messages=messages, chosen=chosen, rejected=rejected, source=source))
        for reply in replies:
            descend(reply, messages)

    _in_tree(lambda: descend(_root(row), []))
    return pairs


PREFERENCES: dict[str, Form[Preference]] = {
    "openai": Form(
        "input, preferred_output, non_preferred_output",
        lambda row: {"input", "preferred_output", "non_preferred_output"} <= set(row),
        _from_openai_pair,
    ),
    "oasst": Form("a tree of replies with ranks", _is_tree, _from_ranks),
    "hh": Form(
        "chosen and rejected as texts with labels of speakers",
        lambda row: (
            isinstance(row.get("chosen"), str)
            and "rejected" in row
            and (str(row.get("prompt") or "") + row["chosen"]).startswith(_HH_LABELS)
        ),
        _from_hh,
    ),
    "pair": Form(
        "chosen and rejected as texts or messages, with or without prompt or instruction",
        lambda row: {"chosen", "rejected"} <= set(row),
        _from_pair,
    ),
}
"""Name -> form: OpenAI's, Open Assistant's ranks, Anthropic's HH, and TRL's with UltraFeedback's."""


def count_reasons(rows: Iterable[Row[Any]]) -> dict[str, int]:
    """Why rows were set aside, and how many for each reason."""
    counts: dict[str, int] = {}
    for row in rows:
        if row.reason is not None:
            counts[row.reason] = counts.get(row.reason, 0) + 1
    return counts
