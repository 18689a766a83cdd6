"""The mixture that a fine-tuning learns: conversations of the tasks and of files, each file as often as its epochs or
its weight say, and some rows of each file kept out to measure the loss on.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from crawltalk.chat.messages import Conversation
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import BadInput
from crawltalk.posttraining.exclusions import conversation_id, read_ids
from crawltalk.posttraining.formats import Row, read_conversations
from crawltalk.posttraining.masks import Lesson, make_lesson
from crawltalk.recipe import Sft

TASKS = "tasks"
"""The name of the built-in tasks' conversations among the sources."""
MOST_MEASURED = 500
"""Rows of a file whose loss is measured, at most: more cost time and change little."""
_REASONS = 3
"""Reasons that a message lists."""


class Refused(msgspec.Struct, kw_only=True):
    """What was set aside, and why; one line of refused.jsonl."""

    file: str
    """Its path; `tasks` for the built-in ones."""
    row: int
    """The first is 1."""
    reason: str


@dataclass
class Mixture:
    """Lessons to learn and to measure, by the names of their sources, and what was set aside."""

    learned: dict[str, list[Lesson]] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    """How often each source occurs in one pass."""
    validation: dict[str, list[Lesson]] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    cut: Counter[str] = field(default_factory=Counter)
    """What was shortened -> how many."""

    def one_pass(self, seed: int) -> list[Lesson]:
        """What is learned in one pass."""
        lessons: list[Lesson] = []
        for name, times in self.times.items():
            lessons += _repeated(self.learned[name], times, random.Random(f"{seed} {name} again"))
        return lessons


def make_mixture(
    built_in: Sequence[Conversation], config: Sft, chat: ChatRenderer, context: int, seed: int
) -> Mixture:
    """The conversations of the tasks, and those of `config.data`; equal for equal seeds.

    A row is refused as `make_lesson` does. Raises BadInput if that happens to more than `config.max_refused` of the
    rows of a source, or to all, or if weights leave nothing for the rest.
    """
    mixture = Mixture()
    pools = mixture.learned
    if built_in:
        own = (Row(number, [conversation]) for number, conversation in enumerate(built_in, 1))
        lessons = _lessons(own, TASKS, mixture, config, chat, context)
        pools[TASKS] = [lesson for row in lessons for lesson in row]
    for name, file in config.data.items():
        rows: Iterable[Row[Conversation]] = read_conversations(file.path, file.form)
        if file.exclude:
            rows = _without(rows, file.path, file.exclude, mixture)
        lessons = _lessons(rows, file.path, mixture, config, chat, context)
        rng = random.Random(f"{seed} {name}")
        kept_out = set(rng.sample(range(len(lessons)), _validation(len(lessons), config.validation)))
        # by rows, so that the branches of one tree stay together
        mixture.validation[name] = [lesson for index in sorted(kept_out) for lesson in lessons[index]]
        pools[name] = [lesson for index, row in enumerate(lessons) if index not in kept_out for lesson in row]
    mixture.times = passes(pools, config)
    return mixture


def _without(
    rows: Iterable[Row[Conversation]], path: str, exclude: str, mixture: Mixture
) -> Iterator[Row[Conversation]]:
    """The rows without the conversations that a list names; these are set aside. What is left is as in a file that
    never had them. Raises BadInput for an id that none has.
    """
    excluded = read_ids(exclude)
    waiting = set(excluded)
    for row in rows:
        kept = [one for one in row.items if conversation_id(one) not in excluded]
        if len(kept) == len(row.items):
            yield row
            continue
        waiting -= {conversation_id(one) for one in row.items}
        mixture.refused.append(Refused(file=path, row=row.number, reason=f"excluded by {exclude}"))
        if kept:
            yield row._replace(items=kept)
    if waiting:
        raise BadInput(
            f"{exclude}: no conversation in {path} has the id {min(waiting)}"
            f"{f' (nor {len(waiting) - 1:,} others)' if len(waiting) > 1 else ''}; was the file changed? Make the "
            "list again with: crawltalk audit"
        )


def _validation(rows: int, share: float) -> int:
    """Rows to measure: at least one if any are asked for, and never all."""
    return min(rows - 1, MOST_MEASURED, max(1, round(rows * share))) if share and rows > 1 else 0


def _lessons(
    rows: Iterable[Row[Conversation]],
    file: str,
    mixture: Mixture,
    config: Sft,
    chat: ChatRenderer,
    context: int,
) -> list[list[Lesson]]:
    """The lessons of each row that has any; what is refused goes into the mixture."""
    lessons: list[list[Lesson]] = []
    count, refused, reasons = 0, 0, Counter[str]()

    def refuse(row: int, reason: str) -> None:
        mixture.refused.append(Refused(file=file, row=row, reason=reason))
        reasons[reason] += 1

    for row in rows:
        count += 1
        mixture.cut["branches of trees that end with the user"] += row.cut
        if row.reason is not None:
            refuse(row.number, row.reason)
        found = []
        for conversation in row.items:
            try:
                lesson = make_lesson(conversation, chat, context)
            except BadInput as error:
                refuse(row.number, str(error))
            else:
                mixture.cut["conversations longer than the context"] += bool(lesson.cut)
                if lesson.conversation not in (other.conversation for other in found):  # cut alike
                    found.append(lesson)
        refused += not found
        lessons += [found] if found else []
    if not count:
        raise BadInput(f"{file} has no rows; give a file of conversations")
    if not lessons or refused > config.max_refused * count:
        way_out = f"see them with: crawltalk show mask {file}"
        if file == TASKS:
            way_out = f"a context of {context} is short for them: --pretrain.model.context 256"
        raise BadInput(
            f"{file}: {refused:,} of {count:,} rows cannot be learned from, and sft.max_refused is "
            f"{config.max_refused:g}: {describe(reasons)}; {way_out}"
        )
    return lessons


def describe(reasons: Mapping[str, int]) -> str:
    """The commonest reasons in one line, each counted whatever numbers it names."""
    counts, examples = Counter[str](), dict[str, str]()
    for reason, count in reasons.items():
        kind = re.sub(r"\d+", "N", reason)
        counts[kind] += count
        examples.setdefault(kind, reason)
    listed = [f"{examples[kind]} ({count:,})" for kind, count in counts.most_common(_REASONS)]
    rest = len(counts) - len(listed)
    return "; ".join(listed) + (f"; and {rest} other reasons" if rest > 0 else "")


def passes(pools: Mapping[str, Sequence[Lesson]], config: Sft) -> dict[str, float]:
    """How often each source occurs in one pass over the mixture. Raises BadInput for weights of 1 or more beside
    sources without a weight.
    """
    tokens = {name: sum(sum(lesson.rendered.loss_mask) for lesson in pool) for name, pool in pools.items()}
    weights = {name: file.weight for name, file in config.data.items() if file.weight is not None}
    times = {
        name: 1.0 if name == TASKS else config.data[name].epochs for name in pools if name not in weights
    }
    total = sum(weights.values())
    if not weights:
        return times
    if not times:  # as many as there are of the scarcest
        whole = min(tokens[name] / weight for name, weight in weights.items())
    elif total < 1:
        whole = sum(tokens[name] * often for name, often in times.items()) / (1 - total)
    else:
        raise BadInput(
            f"the weights in sft.data sum up to {total:g}, which leaves nothing for {', '.join(times)}; make them "
            "smaller, or leave those out"
        )
    # in the order of the recipe
    return {name: times.get(name) or weights[name] * whole / tokens[name] for name in pools}


def _repeated(lessons: Sequence[Lesson], times: float, rng: random.Random) -> list[Lesson]:
    """All lessons so many times, the last time a random part of them."""
    whole = int(times)
    part = round((times - whole) * len(lessons))
    return [*lessons] * whole + rng.sample(list(lessons), part if whole else max(1, part))
