"""Spelling words, counting a letter in them, writing them backwards: a model reads tokens, not letters."""

import random
from collections.abc import Sequence
from functools import cache
from typing import ClassVar

from crawltalk.core.types import Problem
from crawltalk.evals.batteries.battery import Battery, Call, Worked, answered
from crawltalk.evals.batteries.functions import COUNT, REVERSE, SPELL
from crawltalk.tasks.scoring import numbers
from crawltalk.tasks.task import Split, kept_for
from crawltalk.tools.tool import Tool

# fmt: off
WORDS = (
    "animal", "answer", "arrow", "autumn", "banana", "basket", "battle", "beetle", "berry", "blanket", "blossom",
    "bottle", "bottom", "bridge", "bubble", "bullet", "butter", "button", "cabbage", "cannon", "carpet", "carrot",
    "castle", "cattle", "cellar", "cherry", "circle", "coffee", "copper", "corner", "cotton", "country", "curtain",
    "dinner", "dollar", "donkey", "dragon", "drawer", "earring", "eleven", "engine", "escape", "expression", "feather",
    "fellow", "finger", "flower", "follow", "forest", "freedom", "funnel", "garden", "giraffe", "goggles", "grammar",
    "green", "grocery", "hammer", "happen", "harbor", "hidden", "hollow", "honest", "horror", "hunter", "insect",
    "island", "jacket", "jelly", "jungle", "kettle", "kitten", "ladder", "lantern", "lesson", "letter", "little",
    "lizard", "magnet", "mammal", "marble", "market", "matter", "meadow", "merry", "middle", "mirror", "missile",
    "mitten", "mountain", "narrow", "needle", "nettle", "nickel", "number", "occur", "office", "orange", "oven",
    "packet", "paddle", "pattern", "pebble", "pepper", "permit", "pillow", "planet", "pocket", "possess", "potato",
    "pudding", "puddle", "puzzle", "rabbit", "raccoon", "raspberry", "referee", "ribbon", "river", "rotten", "rubber",
    "runner", "saddle", "scissors", "season", "settle", "shadow", "shallow", "silver", "sister", "sorry", "spider",
    "spirit", "squirrel", "station", "strawberry", "street", "stubborn", "success", "summer", "sunset", "supper",
    "surface", "sweater", "symbol", "syrup", "tattoo", "teapot", "temple", "terror", "thunder", "ticket", "timber",
    "tissue", "tomato", "traffic", "tunnel", "turtle", "twelve", "umbrella", "valley", "velvet", "village", "violin",
    "wagon", "walnut", "warrior", "water", "wedding", "whisper", "willow", "window", "winter", "wonder", "worry",
    "yellow", "zipper",
)
# fmt: on
"""Many have a letter twice."""
TWICE_SHARE = 0.6
"""Of the words that have a letter several times: those of which such a letter is asked. Without it `1` would be right
for most words.
"""


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))


def letters(problem: Problem, reply: str) -> float:
    """1 if the first line of the answer is the right letters, whatever stands between them; for a count, if its
    last number is right.
    """
    line = (answered(reply).splitlines() or [""])[0]
    if problem.answer.isdigit():
        return float(numbers(line)[-1:] == numbers(problem.answer))
    separated = "-" in problem.answer and not any(mark in line.strip() for mark in "- ,")
    return float(_letters(line) == _letters(problem.answer) and not separated)


@cache
def _words(split: Split) -> tuple[str, ...]:
    return tuple(word for word in WORDS if kept_for(word) == split)


class Letters(Battery):
    """Words, half of which are only ever in the test."""

    name = "letters"
    about: ClassVar = {
        "spell": "a word, letter by letter",
        "count": "how often a letter occurs in a word",
        "backwards": "a word from its last letter to its first",
    }
    functions: ClassVar[Sequence[Tool]] = (SPELL, COUNT, REVERSE)
    form = ""
    opened = False
    answer_tokens = 32
    score = staticmethod(letters)

    def draw(self, rng: random.Random, kind: str, split: Split) -> list[Worked]:
        """The word decides the split."""
        word = rng.choice(_words(split))
        spelled = "-".join(word)
        if kind == "spell":
            prompt, answer = f"How do you spell {word}?", spelled
            call, steps = Call("spell", {"word": word}, spelled), ""
        elif kind == "count":
            twice = sorted({letter for letter in word if word.count(letter) > 1})
            once = sorted(set(word).difference(twice))
            letter = rng.choice(twice if twice and rng.random() < TWICE_SHARE else once)
            count = str(word.count(letter))
            prompt, answer = (
                f"How many times does the letter {letter} occur in {word}? Give the number.",
                count,
            )
            call, steps = Call("count", {"text": word, "part": letter}, count), f"{spelled}."
        else:
            prompt, answer = f"Write {word} backwards.", word[::-1]
            call, steps = Call("reverse", {"text": word}, answer), f"{spelled}. {'-'.join(answer)}."
        return [Worked(Problem(prompt=prompt, answer=answer, task=f"{self.name}.{kind}"), steps, (call,))]
