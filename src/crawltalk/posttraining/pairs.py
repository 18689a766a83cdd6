"""Pairs of a chosen and a rejected reply, as a model reads them: what DPO and reward models learn from."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from crawltalk.chat.messages import Message, Preference
from crawltalk.chat.render import ChatRenderer, Rendered
from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.posttraining.formats import read_preferences
from crawltalk.posttraining.mixture import Refused, describe
from crawltalk.run.stage import Progress


class Pair(NamedTuple):
    """Two continuations as token ids; the loss masks are those of the continuations alone."""

    chosen: Rendered
    rejected: Rendered


def read_pairs(paths: Sequence[str], progress: Progress, key: str) -> tuple[list[Preference], list[Refused]]:
    """The preferences of all files, and what was set aside with its reason; `key` is the section. Raises MissingInput
    for a missing file.
    """
    preferences, refused = list[Preference](), list[Refused]()
    for path in paths:
        if not Path(path).exists():
            raise MissingInput(f"{path} does not exist; give a file of preferences: --{key}.data FILE")
        for row in read_preferences(path):
            preferences += row.items
            if row.reason:
                refused.append(Refused(file=path, row=row.number, reason=row.reason))
    if refused:
        counts = Counter(row.reason for row in refused)
        progress.warn(f"{len(refused):,} refused, all in refused.jsonl: {describe(counts)}")
    return preferences, refused


def pairs_that_fit(
    preferences: Sequence[Preference], chat: ChatRenderer, context: int, progress: Progress
) -> tuple[list[Pair], list[Preference]]:
    """The pairs that a model can learn from, and their preferences; it is reported how many others there are and why.
    Raises BadInput if there are none.
    """
    pairs, used, reasons = list[Pair](), list[Preference](), Counter[str]()
    for row in preferences:
        pair = Pair(*(_continuation(chat, row.messages, reply) for reply in (row.chosen, row.rejected)))
        if reason := _unfit(pair, context):
            reasons[reason] += 1
        else:
            pairs.append(pair)
            used.append(row)
    listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    if not pairs:
        raise BadInput(
            f"of {len(preferences)} pairs of replies none can be learned from ({listed or 'the files are empty'})"
        )
    if listed:
        progress.warn(f"pairs that were left out: {listed}")
    return pairs, used


def _continuation(chat: ChatRenderer, messages: Sequence[Message], reply: Sequence[Message]) -> Rendered:
    """A whole conversation whose loss mask begins with the reply."""
    before, whole = len(chat.render(messages).ids), chat.render([*messages, *reply])
    return Rendered(whole.ids, [False] * before + whole.loss_mask[before:])


def _unfit(pair: Pair, context: int) -> str | None:
    if pair.chosen.ids == pair.rejected.ids:
        return "with two equal replies"
    if not any(pair.chosen.loss_mask) or not any(pair.rejected.loss_mask):
        return "with an empty reply"
    if max(len(reply.ids) for reply in pair) > context:
        return f"longer than the context of {context} tokens"
    return None


def draw_pairs(pairs: Sequence[Pair], batch_pairs: int, seed: int, step: int) -> list[int]:
    """The numbers of the pairs of a step: each epoch has every pair once, in a new order. The longest come first, so
    that rows that are computed together are of one length.
    """
    epoch, index = divmod(step, -(-len(pairs) // batch_pairs))
    order = random.Random(f"{seed} {epoch}").sample(range(len(pairs)), len(pairs))
    drawn = order[index * batch_pairs : (index + 1) * batch_pairs]
    return sorted(drawn, key=lambda number: -length_of(pairs[number]))


def length_of(pair: Pair) -> int:
    """Tokens of its longer side."""
    return max(len(reply.ids) for reply in pair)
