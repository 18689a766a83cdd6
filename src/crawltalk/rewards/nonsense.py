"""A search for nonsense that a reward model likes: what an optimiser would find, found without training one.

A learned reward is right about replies like those that it was trained on. Elsewhere it says anything, and somewhere it
says "excellent". Whoever optimises a policy against it looks for such places.
"""

import random
from collections.abc import Callable, Sequence

import msgspec

Scores = Callable[[Sequence[Sequence[int]]], Sequence[float]]
"""Token ids of replies -> their scores."""


class Found(msgspec.Struct, frozen=True):
    """A reply and what the reward model gives it."""

    reply: list[int]
    score: float


def repetitions(scores: Scores, tokens: Sequence[int], length: int) -> list[Found]:
    """Of each token the reply that says it `length` times ("the the the"), the best first."""
    return _rated([[token] * length for token in tokens], scores)


def climb(
    scores: Scores,
    start: Sequence[int],
    tokens: Sequence[int],
    rng: random.Random,
    *,
    rounds: int = 40,
    width: int = 48,
    longest: int = 24,
) -> Found:
    """The best reply of a hill climb that begins with `start`: in each of the `rounds`, `width` variants of the best
    one so far are scored, each with a token that is replaced, inserted, removed or doubled, sometimes several.
    """
    [best] = _rated([list(start)], scores)
    for _ in range(rounds):
        variants = [_varied(best.reply, tokens, rng, longest) for _ in range(width)]
        best = max(best, _rated(variants, scores)[0], key=lambda found: found.score)
    return best


def _varied(reply: Sequence[int], tokens: Sequence[int], rng: random.Random, longest: int) -> list[int]:
    varied = list(reply)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(varied))
        match rng.choice(("replace", "insert", "remove", "double")):
            case "replace":
                varied[place] = rng.choice(tokens)
            case "insert" if len(varied) < longest:
                varied.insert(place, rng.choice(tokens))
            case "remove" if len(varied) > 1:
                del varied[place]
            case "double" if len(varied) < longest:
                varied.insert(place, varied[place])
    return varied


def _rated(replies: Sequence[list[int]], scores: Scores) -> list[Found]:
    rated = [Found(reply, score) for reply, score in zip(replies, scores(replies), strict=True)]
    return sorted(rated, key=lambda found: -found.score)
