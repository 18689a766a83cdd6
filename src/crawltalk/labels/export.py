"""Labels as what training reads: conversations for fine-tuning, preferences for DPO and reward models; and as they
are, for another store.

What becomes of a label:

| label        | conversations                              | preferences                                         |
|--------------|--------------------------------------------|-----------------------------------------------------|
| ideal answer | the prompt with it                         |                                                     |
| edit         | the prompt with the edited reply           | the edited reply over the original                  |
| ranking      |                                            | every pair of it but ties (Ouyang et al. 2022, 3.5) |
| thumbs       | a reply with thumbs up and no thumb down,  | every reply with more up than down over every reply |
|              | if nobody wrote a better one to its prompt | to the same prompt with more down than up           |

What is left out is counted with the reason.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import Any

import msgspec

from crawltalk.chat.messages import Message, Preference, text_of
from crawltalk.labels.rows import JUDGE, Edit, Ideal, Ranking, Record, Snapshot, Thumb

_NOT_WRITTEN = {"ranking": "ranking, which makes preferences", "skip": "skipped prompt"}
_NOT_COMPARED = {"ideal": "ideal answer, which makes a conversation", "skip": "skipped prompt"}


class Example(msgspec.Struct):
    """A conversation for fine-tuning, a row of `messages` JSONL."""

    messages: list[dict[str, Any]]
    """In the form of OpenAI's API. Replies before the labelled one, which nobody has judged, have its `weight: 0`: they
    are read, and not learned.
    """
    source: str


def chosen_labels(snapshot: Snapshot, labelers: Sequence[str] = ()) -> Snapshot:
    """Only the labels of these labelers; of all people if none is named."""
    labels = [
        label
        for label in snapshot.labels
        if (label.labeler in labelers if labelers else not label.labeler.startswith(JUDGE))
    ]
    return Snapshot(snapshot.prompts, snapshot.candidates, labels)


def to_conversations(snapshot: Snapshot) -> tuple[list[Example], Counter[str]]:
    """(conversations, what was left out: reason -> labels)."""
    left_out: Counter[str] = Counter()
    rows: dict[bytes, Example] = {}
    written = {label.prompt for label in snapshot.labels if isinstance(label.value, Ideal | Edit)}
    votes = _votes(snapshot)
    for label in snapshot.labels:
        reply, source = [], ""
        match label.value:
            case Ideal(text):
                reply, source = [Message("assistant", text)], "ideal answer"
            case Edit(_, text):
                reply, source = [Message("assistant", text)], "edit"
            case Thumb(candidate, True):
                if label.prompt in written:
                    left_out["thumb up, and a better reply was written"] += 1
                elif votes[candidate]["down"]:
                    left_out["thumb up, and somebody's thumb down"] += 1
                else:
                    reply, source = snapshot.candidates[label.prompt][candidate].reply, "thumb up"
            case Thumb():
                left_out["thumb down"] += 1
            case _:
                left_out[_NOT_WRITTEN[label.kind]] += 1
        if not reply:
            continue
        messages = [*map(_read_only, snapshot.prompts[label.prompt].messages), *msgspec.to_builtins(reply)]
        if _is_empty(reply):
            left_out["empty reply"] += 1
        elif (key := msgspec.json.encode(messages)) in rows:
            left_out["the same reply again"] += 1
        else:
            rows[key] = Example(messages, source)
    return list(rows.values()), left_out


def to_preferences(snapshot: Snapshot) -> tuple[list[Preference], Counter[str]]:
    """(preferences, what was left out: reason -> pairs, or labels that make none). Where labelers disagree, the pair of
    each is there.
    """
    left_out: Counter[str] = Counter()
    rows: list[Preference] = []

    def add(prompt: str, chosen: list[Message], rejected: list[Message], source: str) -> None:
        if _is_empty(chosen) or _is_empty(rejected):
            left_out["empty reply"] += 1
        elif chosen == rejected:
            left_out["both replies are the same"] += 1
        else:
            messages = snapshot.prompts[prompt].messages
            rows.append(Preference(messages=messages, chosen=chosen, rejected=rejected, source=source))

    for label in snapshot.labels:
        replies = snapshot.candidates.get(label.prompt, {})
        match label.value:
            case Ranking(ranks):
                for (one, rank), (other, other_rank) in combinations(sorted(ranks.items()), 2):
                    if rank == other_rank:
                        left_out["tie"] += 1
                    else:
                        better, worse = (one, other) if rank < other_rank else (other, one)
                        add(label.prompt, replies[better].reply, replies[worse].reply, "ranking")
            case Edit(candidate, text):
                add(label.prompt, [Message("assistant", text)], replies[candidate].reply, "edit")
            case Thumb():
                pass
            case _:
                left_out[_NOT_COMPARED[label.kind]] += 1
    votes = _votes(snapshot)
    for prompt, replies in snapshot.candidates.items():
        balance = {id_: votes[id_]["up"] - votes[id_]["down"] for id_ in replies if id_ in votes}
        liked = [id_ for id_, votes_up in balance.items() if votes_up > 0]
        disliked = [id_ for id_, votes_up in balance.items() if votes_up < 0]
        for better, worse in product(liked, disliked):
            add(prompt, replies[better].reply, replies[worse].reply, "thumbs")
        if not (liked and disliked):
            left_out["thumb without its opposite under another reply"] += len(balance)
    return rows, +left_out


def to_records(snapshot: Snapshot) -> Iterator[Record]:
    """Each label with what it is about."""
    for label in snapshot.labels:
        candidates = list(snapshot.candidates.get(label.prompt, {}).values())
        yield Record(label, snapshot.prompts[label.prompt], candidates)


def contradictions(preferences: Sequence[Preference]) -> int:
    """Pairs of replies of which each is preferred in some row."""
    keys = [
        [msgspec.json.encode(part) for part in (row.messages, row.chosen, row.rejected)]
        for row in preferences
    ]
    pairs = {(prompt, chosen, rejected) for prompt, chosen, rejected in keys}
    return sum((prompt, rejected, chosen) in pairs for prompt, chosen, rejected in pairs) // 2


def _votes(snapshot: Snapshot) -> dict[str, Counter[str]]:
    """Candidate -> thumbs up and down."""
    votes: dict[str, Counter[str]] = {}
    for label in snapshot.labels:
        if isinstance(label.value, Thumb):
            votes.setdefault(label.value.candidate, Counter())["up" if label.value.up else "down"] += 1
    return votes


def _read_only(message: Message) -> dict[str, Any]:
    return msgspec.to_builtins(message) | ({"weight": 0} if message.role == "assistant" else {})


def _is_empty(reply: Sequence[Message]) -> bool:
    return not any(text_of(message).strip() or message.tool_calls for message in reply)
