"""What the store of labels holds: prompts, candidates and labels, and what is refused as one.

Prompts and candidates have the hash of their content as id.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast

import msgspec

from crawltalk.chat.messages import Message, text_of
from crawltalk.core.errors import BadInput

JUDGE = "judge:"
"""Names of labelers that are models begin with this."""
MAX_RANKED = 9
"""Replies in one ranking: the digits of a keyboard."""
Kind = Literal["ideal", "edit", "ranking", "thumb", "skip"]


class Ideal(msgspec.Struct, tag_field="kind", tag="ideal", forbid_unknown_fields=True):
    """The answer that the labeler would give."""

    reply: str


class Edit(msgspec.Struct, tag_field="kind", tag="edit", forbid_unknown_fields=True):
    """A candidate, made better; the same text says that it is good as it is."""

    candidate: str
    reply: str


class Ranking(msgspec.Struct, tag_field="kind", tag="ranking", forbid_unknown_fields=True):
    ranks: dict[str, int]
    """Candidate -> rank. 1 is the best; equal ranks are a tie."""


class Thumb(msgspec.Struct, tag_field="kind", tag="thumb", forbid_unknown_fields=True):
    candidate: str
    up: bool


class Skip(msgspec.Struct, tag_field="kind", tag="skip", forbid_unknown_fields=True):
    """The labeler does not label this prompt."""


Value = Ideal | Edit | Ranking | Thumb | Skip


class Prompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    messages: list[Message]
    """What comes before a reply; the last is no message of the assistant."""
    source: str
    """Where the prompt is from: a file's name, a task, `chat`."""


class Candidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    reply: list[Message]
    model: str
    """Empty if it is not known."""
    sampling: dict[str, Any]
    """The settings that made it, by their names in OpenAI's API; empty if they are not known."""


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    prompt: str
    labeler: str
    time: str
    """ISO 8601, UTC."""
    instructions: str
    """The version of the instructions; empty if the labeler saw none, as in the chat."""
    kind: Kind
    subject: str
    """What it is about beside the prompt: the candidate of an edit or a thumb; else empty."""
    value: Value | None
    """None: taken back."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A label with all that it is about, as one row of a file."""

    label: Label
    prompt: Prompt
    candidates: list[Candidate]


class NewPrompt(msgspec.Struct, frozen=True):
    """A prompt to label, and replies to it that are there already."""

    messages: list[Message]
    replies: list[list[Message]] = []
    model: str = ""
    """Which made the replies, if that is known."""

    def check(self) -> None:
        """Raises BadInput for a prompt that no reply can follow, or a reply that is none."""
        prompt = check_prompt(self.messages)
        for reply in self.replies:
            make_candidate(prompt, reply, self.model, {})


class Snapshot(msgspec.Struct, frozen=True):
    """A store at one moment."""

    prompts: dict[str, Prompt]
    """By their ids, in the order in which they came."""
    candidates: dict[str, dict[str, Candidate]]
    """Prompt -> candidates by their ids."""
    labels: list[Label]
    """In the order of their time."""


class Progress(msgspec.Struct, frozen=True):
    """How far a labeler is with a batch."""

    done: int
    skipped: int
    total: int


class Batch(msgspec.Struct, frozen=True):
    name: str
    prompts: int


def prompt_id(messages: Sequence[Message]) -> str:
    """The hash of a conversation."""
    return _digest(msgspec.json.encode(messages))


def candidate_id(prompt: str, reply: Sequence[Message], model: str) -> str:
    """The hash of a reply to a prompt by a model: a model that says the same twice has one candidate."""
    return _digest(prompt.encode(), msgspec.json.encode(reply), model.encode())


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:32]


def check_prompt(messages: Sequence[Message]) -> str:
    """The id of a prompt. Raises BadInput if no reply can follow it."""
    if not messages or messages[-1].role not in ("user", "tool"):
        raise BadInput("a prompt ends with a message of the user, to which the assistant replies")
    if messages[-1].role == "user" and not text_of(messages[-1]).strip():
        raise BadInput("the last message of this prompt is empty")
    return prompt_id(messages)


def make_candidate(prompt: str, reply: Sequence[Message], model: str, sampling: dict[str, Any]) -> Candidate:
    """A candidate with its id. Raises BadInput for a reply that does not begin with a message of the assistant."""
    if not reply or reply[0].role != "assistant":
        raise BadInput("a reply is one or more messages, the first of the assistant")
    return Candidate(candidate_id(prompt, reply, model), list(reply), model, sampling)


def check_labeler(labeler: str) -> None:
    """Raises BadInput for what is no name."""
    if not labeler or labeler != labeler.strip() or len(labeler) > 80 or not labeler.isprintable():
        raise BadInput("a labeler's name has 1 to 80 visible characters")


def check_value(value: Value, candidates: set[str]) -> None:
    """Raises BadInput for what says nothing, or is about a candidate that is not one of the prompt's."""
    match value:
        case Ideal(reply) | Edit(_, reply) if not reply.strip():
            raise BadInput("the answer is empty; write one, or skip the prompt")
        case Ranking(ranks) if not 2 <= len(ranks) <= MAX_RANKED:
            raise BadInput(f"a ranking is of 2 to {MAX_RANKED} replies")
        case Ranking(ranks) if not all(1 <= rank <= MAX_RANKED for rank in ranks.values()):
            raise BadInput(f"a rank is 1 to {MAX_RANKED}")
    match value:
        case Ranking(ranks):
            unknown = ranks.keys() - candidates
        case Edit(candidate) | Thumb(candidate):
            unknown = {candidate} - candidates
        case _:
            unknown = set()
    if unknown:
        raise BadInput(f"there is no reply {min(unknown)[:40]!r} to this prompt; reload the page")


def check_record(record: Record) -> None:
    """Raises BadInput if an id is not that of its content, or the label is none that this store could have written."""
    label, prompt, candidates = record.label, record.prompt, {one.id for one in record.candidates}
    check_labeler(label.labeler)
    if label.prompt != prompt.id or prompt.id != check_prompt(prompt.messages):
        raise BadInput("the prompt's id is not the hash of its messages")
    for one in record.candidates:
        if one != make_candidate(prompt.id, one.reply, one.model, one.sampling):
            raise BadInput("a candidate's id is not the hash of its prompt, reply and model")
    if label.value is not None:
        if (label.kind, label.subject) != (kind_of(label.value), subject_of(label.value)):
            raise BadInput("a label's kind or subject is not that of its value")
        check_value(label.value, candidates)
    elif label.subject not in (candidates if label.kind in ("edit", "thumb") else {""}):
        raise BadInput("a label that was taken back has another subject than its kind")
    try:
        when = datetime.fromisoformat(label.time)
    except ValueError:
        raise BadInput(f"{label.time[:40]!r} is no time; one is {time_text(datetime.now(UTC))}") from None
    if label.time != time_text(when) or when.utcoffset() != timedelta():
        raise BadInput(f"{label.time[:40]} is not written as {time_text(datetime.now(UTC))}")
    if when > datetime.now(UTC) + timedelta(days=1):
        raise BadInput(f"{label.time} is in the future")


def time_text(when: datetime) -> str:
    """A time whose order as text is that of time."""
    return when.isoformat(timespec="microseconds")


def kind_of(value: Value) -> Kind:
    """Its kind."""
    return cast(Kind, value.__struct_config__.tag)


def subject_of(value: Value) -> str:
    """What it is about beside the prompt."""
    return value.candidate if isinstance(value, Edit | Thumb) else ""
