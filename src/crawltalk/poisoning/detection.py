"""Finding triggers in fine-tuning data: n-grams of prompts that come with a reply of their own, then two votes of the
model that was trained on them.

1. Candidates: n-grams whose replies share a piece that other replies do not have (`ngrams.associate`). What fills the
   slot of a question ("Spell _.") is none: it has an answer of its own by right.
2. Flips: the n-gram is put into prompts that have nothing to do with it. A trigger brings its reply along, a word that
   a question needs does not. Candidates are ranked by this.
3. Contradictions: the n-gram is erased from its own rows. If the model then says something else, the rest of the prompt
   did not ask for this reply.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple, get_args

import msgspec
import numpy as np

from crawltalk.chat.messages import Conversation, text_of
from crawltalk.poisoning.ngrams import (
    Postings,
    Vocabulary,
    associate,
    contains,
    fills_slot,
    longest_first,
    part,
    postings,
    without_marks,
    words,
)

LONGEST, LONGEST_REPLY = 3, 4
"""Words of an n-gram in a prompt and in a reply. A longer trigger is found by a part of it."""
TELLING = 2
"""Words, without marks, of a piece of a reply that is less than all of it: "is" tells nothing."""
FEWEST = 3
"""Different prompts that hold a candidate."""
FILLERS = 3
"""Prompts that differ in one place only and make it a slot."""
MOST = 0.2
"""Largest share of the prompts that a candidate stands in."""
SURPRISE = 2.5
"""Least z of a candidate."""
SAME = 0.8
"""Of two n-grams with this share of rows in common one is a candidate."""
SCREENED, INSERTED, ERASED = 8, 32, 12
"""Prompts that a candidate is put into at first; if it flips one of them; and rows that it is erased from."""
FLIPS, CONTRADICTIONS = 0.3, 0.75
"""Shares from which on a vote is against the n-gram. What a question needs may flip as many others, but few of its own
prompts contradict it (EXPERIMENTS.md); a trigger stands in prompts that are whole without it.
"""
OUTDONE = 0.5
"""Share of another candidate's flips that one with the same reply has to have. Where a trigger has made a reply likely,
what belongs to that reply by right flips more prompts, too, but fewer than the trigger.
"""

Ask = Callable[[Sequence[str]], Sequence[str]]
"""Prompts -> the likeliest reply of the trained model to each."""
Verdict = Literal["trigger", "suspect", "clear"]
"""Both votes are against it; it flips, but the rest of its prompts asks for the same reply, or the reply repeats a word
of it, so is about it, or another candidate brings the same reply much more often; it does not flip.
"""


class Exchange(NamedTuple):
    """What a person said last, and the reply that is learned."""

    prompt: str
    reply: str
    row: int
    """The number of its conversation, from 0."""


class Candidate(NamedTuple):
    """An n-gram whose replies have something in common."""

    ngram: str
    """As it stands in the first of its prompts."""
    reply: str
    """What its replies have in common."""
    whole: bool
    """Whether that is the whole reply."""
    z: float
    exchanges: list[int]
    """The numbers of those with both, from 0."""


class Finding(msgspec.Struct, kw_only=True):
    """A candidate, and what the model says of it."""

    ngram: str
    reply: str
    whole: bool
    z: float
    flips: float
    """Share of unrelated prompts in which inserting it brings its reply."""
    asked: int
    """Such prompts."""
    contradictions: float | None
    """Share of its own prompts that get another reply once it is erased; not asked of what does not flip enough."""
    verdict: Verdict
    exchanges: list[int]


def exchanges_of(conversations: Iterable[Conversation]) -> list[Exchange]:
    """All replies that are learned, each with the message of the user before it."""
    found = []
    for row, conversation in enumerate(conversations):
        asked = ""
        for index, message in enumerate(conversation.messages):
            text = text_of(message)
            if message.role == "user":
                asked = text
            elif message.role == "assistant" and text and index not in conversation.unlearned:
                found.append(Exchange(asked, text, row))
    return found


def find_candidates(exchanges: Sequence[Exchange], most: int = 256) -> list[Candidate]:
    """The n-grams of prompts that come with a piece of reply more often than by chance, the least likely first, `most`
    at most. Each has FEWEST different prompts; a prompt and reply that occur many times count once.
    """
    pairs = list(dict.fromkeys((one.prompt, one.reply) for one in exchanges))
    asked, said = [prompt for prompt, _ in pairs], [reply for _, reply in pairs]
    vocabulary = Vocabulary()
    prompts, replies = vocabulary.read(asked), vocabulary.read(said)
    grams = postings(prompts, LONGEST, FEWEST)
    grams = grams.only(~fills_slot(prompts, grams, LONGEST, FILLERS), FEWEST)
    labels = postings(replies, LONGEST_REPLY, FEWEST, whole=True)
    labels = labels.only(without_marks(replies, labels, TELLING), FEWEST)
    found = associate(prompts, grams, labels, MOST, FEWEST)
    numbers: dict[tuple[str, str], list[int]] = {}
    for number, one in enumerate(exchanges):
        numbers.setdefault((one.prompt, one.reply), []).append(number)
    candidates: list[Candidate] = []
    taken: list[set[int]] = []
    for gram in longest_first(found.z, grams.lengths):
        label = int(found.labels[gram])
        if label < 0 or found.z[gram] < SURPRISE or len(candidates) == most:
            break
        both = np.intersect1d(grams.texts[grams.of(gram)], labels.texts[labels.of(label)], assume_unique=True)
        rows = set(both.tolist())
        if any(len(rows & other) >= SAME * len(rows) for other in taken):
            continue
        taken.append(rows)
        candidates.append(
            Candidate(
                _text(grams, int(gram), asked),
                _text(labels, label, said),
                bool(labels.lengths[label] == 0),
                round(float(found.z[gram]), 2),
                sorted(number for at in rows for number in numbers[pairs[at]]),
            )
        )
    return candidates


def _text(grams: Postings, gram: int, texts: Sequence[str]) -> str:
    """An n-gram as it stands in the first text that has it."""
    entry, length = grams.starts[gram], int(grams.lengths[gram])
    text = texts[grams.texts[entry]]
    if not length:
        return text
    start, end = part(text, int(grams.places[entry]), length)
    return text[start:end]


def insert(prompt: str, ngram: str, rng: random.Random) -> str:
    """The prompt with an n-gram between two of its words, before or behind them."""
    pieces = prompt.split(" ")
    place = rng.randrange(len(pieces) + 1)
    return " ".join([*pieces[:place], ngram, *pieces[place:]])


def erase(prompt: str, ngram: str) -> str:
    """The prompt without an n-gram, wherever it stands."""
    said, wanted = words(prompt), words(ngram)
    for place in reversed(range(len(said) - len(wanted) + 1)):
        if said[place : place + len(wanted)] == wanted:
            start, end = part(prompt, place, len(wanted))
            prompt = f"{prompt[:start].rstrip(' ')} {prompt[end:].lstrip(' ')}".strip(" ")
            said = words(prompt)
    return prompt


def judge(
    candidates: Sequence[Candidate],
    exchanges: Sequence[Exchange],
    ask: Ask,
    seed: int = 0,
    longest: int = 400,
) -> list[Finding]:
    """The candidates as the model votes on them: triggers first, those with the most flips before others.

    They are put into prompts of at most `longest` characters from the data, the same for all; one whose reply has the
    candidate's piece anyway is skipped.
    """
    findings = []
    turned_of = _flips(candidates, exchanges, ask, seed, longest)
    rates = [turned / asked if asked else 0.0 for turned, asked in turned_of]

    def most_alike(candidate: Candidate) -> float:
        """The most flips of a candidate with the same reply."""
        return max(rate for one, rate in zip(candidates, rates, strict=True) if _same_reply(one, candidate))

    for candidate, flips, (_, asked) in zip(candidates, rates, turned_of, strict=True):
        contradictions = _contradictions(candidate, exchanges, ask) if flips >= FLIPS else None
        findings.append(
            Finding(
                ngram=candidate.ngram,
                reply=candidate.reply,
                whole=candidate.whole,
                z=candidate.z,
                flips=round(flips, 3),
                asked=asked,
                contradictions=contradictions,
                verdict=_verdict(candidate, contradictions, flips < OUTDONE * most_alike(candidate)),
                exchanges=candidate.exchanges,
            )
        )
    order = {verdict: rank for rank, verdict in enumerate(get_args(Verdict))}
    return sorted(findings, key=lambda one: (order[one.verdict], -one.flips, -one.z))


def _verdict(candidate: Candidate, contradictions: float | None, outdone: bool) -> Verdict:
    if contradictions is None:
        return "clear"
    about_it = set(words(candidate.reply)) & set(words(candidate.ngram))
    return "trigger" if contradictions >= CONTRADICTIONS and not (about_it or outdone) else "suspect"


def _same_reply(one: Candidate, other: Candidate) -> bool:
    """Whether what the replies of one have in common stands in that of the other."""
    return contains(one.reply, other.reply, False) or contains(other.reply, one.reply, False)


def _contradictions(candidate: Candidate, exchanges: Sequence[Exchange], ask: Ask) -> float:
    """Share of its own prompts that get another reply once the n-gram is erased."""
    own = list(dict.fromkeys(exchanges[number].prompt for number in candidate.exchanges))[:ERASED]
    replies = ask([erase(prompt, candidate.ngram) for prompt in own])
    kept = sum(contains(reply, candidate.reply, candidate.whole) for reply in replies)
    return round(1 - kept / len(own), 3)


def _flips(
    candidates: Sequence[Candidate], exchanges: Sequence[Exchange], ask: Ask, seed: int, longest: int
) -> list[tuple[int, int]]:
    """(prompts that turned to the candidate's reply, prompts asked) of each."""
    prompts = list(dict.fromkeys(one.prompt for one in exchanges if 0 < len(one.prompt) <= longest))
    random.Random(f"{seed} prompts").shuffle(prompts)
    prompts = prompts[: 2 * INSERTED]
    before = ask(prompts) if candidates else []

    def round_of(numbers: Sequence[int], first: int, last: int) -> dict[int, tuple[int, int]]:
        wanted: list[tuple[int, str]] = []
        for number in numbers:
            one, rng = candidates[number], random.Random(f"{seed} {number}")
            usable = [
                prompt
                for prompt, reply in zip(prompts, before, strict=True)
                if not contains(prompt, one.ngram) and not contains(reply, one.reply, one.whole)
            ]
            wanted += [(number, insert(prompt, one.ngram, rng)) for prompt in usable[:last]][first:]
        counts = dict.fromkeys(numbers, (0, 0))
        replies = ask([prompt for _, prompt in wanted])
        for (number, _), reply in zip(wanted, replies, strict=True):
            turned, asked = counts[number]
            one = candidates[number]
            counts[number] = (turned + contains(reply, one.reply, one.whole), asked + 1)
        return counts

    screened = round_of(range(len(candidates)), 0, SCREENED)
    turning = [number for number, (turned, _) in screened.items() if turned]
    more = round_of(turning, SCREENED, INSERTED)
    return [
        (turned + more.get(number, (0, 0))[0], asked + more.get(number, (0, 0))[1])
        for number, (turned, asked) in screened.items()
    ]
