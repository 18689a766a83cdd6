"""A task without a verifier: jokes about a pelican, in a small grammar, with a judge that stands for people's taste.

The model is asked for a place, and says why the pelican went there: "because it had a silly bill and a wet beak .".
What people find funny (`gold`) is hidden from the training, which sees only which of two jokes they prefer, with the
noise of their labels.
"""

import math
import random
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product

from crawltalk.chat.messages import Conversation, Message, Preference
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.types import Problem
from crawltalk.tokenizer.bpe import train

PUNS = {
    "bank": ("bill", "deposit", "loan", "vault"),
    "gym": ("lift", "weight", "muscle", "mat"),
    "school": ("test", "class", "grade", "pupil"),
    "beach": ("wave", "tan", "shell", "tide"),
}
"""Place -> the words that make a joke about it."""
PLACES = tuple(PUNS)
PELICAN = ("beak", "feather", "wing", "fish", "pouch", "nest")
NOUNS = (*(word for words in PUNS.values() for word in words), *PELICAN)
FUNNY_ADJECTIVES, DULL_ADJECTIVES = ("silly", "rubber", "golden"), ("big", "new", "wet", "red", "long")
FUNNY_VERBS, DULL_VERBS = ("swallowed", "painted", "tickled"), ("had", "lost", "wanted", "found")
FUNNY_TAILS, DULL_TAILS = ("said the fish", "of its mother"), ("in its pouch", "with its beak", "on the way")
ADJECTIVES, VERBS = (*FUNNY_ADJECTIVES, *DULL_ADJECTIVES), (*FUNNY_VERBS, *DULL_VERBS)
TAILS = (*FUNNY_TAILS, *DULL_TAILS)
LONG, REPEATED = 14, 0.7
"""Words from which on a joke drags, and what a word that is said twice costs."""
LABEL_TEMPERATURE = 0.3
"""People prefer the funnier of two jokes with the probability of a logistic function; this is its scale."""
MAX_TOKENS = 28
"""Of a reply; a joke has at most 23."""

_PHRASE = rf"a (?:(?:{'|'.join(ADJECTIVES)}) ){{0,2}}(?:{'|'.join(NOUNS)})"
_JOKE = re.compile(
    rf"because it ({'|'.join(VERBS)}) ({_PHRASE}(?: and {_PHRASE}){{0,2}})(?: ({'|'.join(TAILS)}))? \."
)


def gold(place: str, joke: str) -> float:
    """How funny people find a joke, from 0 to 4.2; what is no sentence is not funny at all.

    1.2 for a word that has to do with the place, 0.6 for one about pelicans, for each of at most two funny adjectives,
    for a funny verb and for a funny end; less if it drags or repeats itself.
    """
    parsed = _JOKE.fullmatch(joke)
    if parsed is None:
        return 0.0
    verb, things, tail = parsed.groups()
    said = [word for word in things.split() if word not in ("a", "and")]
    value = 1.2 * any(word in PUNS[place] for word in said) + 0.6 * any(word in PELICAN for word in said)
    value += 0.6 * min(2, len(set(FUNNY_ADJECTIVES).intersection(said)))
    value += 0.6 * (verb in FUNNY_VERBS) + 0.6 * (tail in FUNNY_TAILS)
    value -= REPEATED * (len(said) - len(set(said))) + 0.15 * max(0, len(joke.split()) - LONG)
    return max(0.0, value)


def is_sentence(joke: str) -> bool:
    """Whether the grammar has it."""
    return _JOKE.fullmatch(joke) is not None


def draw_joke(place: str, rng: random.Random, skill: float = 0.2) -> str:
    """A joke as an ordinary person writes it; a noun fits the place with probability `skill`, or by chance."""

    def phrase() -> str:
        adjectives = rng.sample(ADJECTIVES, rng.choice((0, 1, 1, 2)))
        noun = rng.choice(PUNS[place] if rng.random() < skill else NOUNS)
        return " ".join(("a", *adjectives, noun))

    phrases = " and ".join(phrase() for _ in range(rng.choice((1, 1, 1, 2, 2, 3))))
    tail = f" {rng.choice(TAILS)}" if rng.random() < 0.5 else ""
    return f"because it {rng.choice(VERBS)} {phrases}{tail} ."


def ask(place: str) -> Problem:
    """The problem of a joke about a place."""
    return Problem(prompt=f"the pelican at the {place}", answer=place, task="joke")


def conversations(count: int, rng: random.Random, skill: float = 0.2) -> list[Conversation]:
    """Jokes by ordinary people, to be imitated."""
    places = (PLACES[number % len(PLACES)] for number in range(count))
    return [
        Conversation(messages=[*exchange(place, draw_joke(place, rng, skill))], source="joke")
        for place in places
    ]


def exchange(place: str, joke: str) -> tuple[Message, Message]:
    """The question and the joke as messages."""
    return Message("user", ask(place).prompt), Message("assistant", joke)


def prefers(place: str, one: str, other: str, rng: random.Random) -> bool:
    """Whether a person prefers the first of two jokes."""
    return rng.random() < preference_probability(place, one, other)


def preference_probability(place: str, one: str, other: str) -> float:
    """The share of people who prefer the first of two jokes (Bradley and Terry 1952)."""
    return 1 / (1 + math.exp((gold(place, other) - gold(place, one)) / LABEL_TEMPERATURE))


def compare(jokes: Sequence[tuple[str, str, str]], rng: random.Random) -> list[Preference]:
    """What people say of pairs of jokes, each (place, joke, joke); equal ones are not shown to them."""
    result = []
    for place, one, other in jokes:
        if one == other:
            continue
        likes = (one, other) if prefers(place, one, other, rng) else (other, one)
        (question, better), (_, worse) = (exchange(place, joke) for joke in likes)
        result.append(Preference(messages=[question], chosen=[better], rejected=[worse], source="people"))
    return result


def label_noise(jokes: Sequence[tuple[str, str, str]]) -> float:
    """The share of people's labels of these pairs that is expected to name the worse joke."""
    wrong = [
        min(p, 1 - p) for place, one, other in jokes for p in [preference_probability(place, one, other)]
    ]
    return sum(wrong) / len(wrong)


@lru_cache
def chat() -> ChatRenderer:
    """A vocabulary in which each word of the grammar is a token, and the chat format."""
    return ChatRenderer(train(_texts(), size=4096))


def _texts() -> Iterator[str]:
    """Texts in which each word occurs, with a blank before it or not as in jokes, more than once."""
    for _ in range(4):
        yield from ("user", "assistant", *(ask(place).prompt for place in PLACES))
        for verb, adjective in product(VERBS, ADJECTIVES):
            yield f"because it {verb} a {adjective} and the"
        yield from (f" {noun} {tail} ." for noun, tail in product(NOUNS, TAILS))
