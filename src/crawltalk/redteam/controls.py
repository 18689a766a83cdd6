"""Targets that no attack can mean anything against: what an oracle finds in them is an error of the oracle."""

import random
import string
from collections.abc import Sequence

from crawltalk.redteam.frame import Prompt, Reply

WORDS = 40


class Nonsense:
    """Answers anything with random letters and digits, a different text each time."""

    name, white_box = "null-nonsense", None

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """One text a prompt, a function of the prompt."""
        return [Reply(text=_babble(random.Random(prompt.request)), tokens=WORDS) for prompt in prompts]


class Refuser:
    """Declines everything."""

    name, white_box = "null-refuser", None

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """The same refusal to each."""
        return [Reply(text="I cannot say that.", tokens=5) for _ in prompts]


class Parrot:
    """Repeats what it is asked. Whatever looks for a text that the request holds itself finds it, so it stands beside
    the judges of others, and is no null model of ours: our oracles leave such requests undetermined.
    """

    name, white_box = "null-parrot", None

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """The request, for each."""
        return [Reply(text=prompt.request) for prompt in prompts]


def _babble(rng: random.Random) -> str:
    letters = string.ascii_lowercase + string.digits
    return " ".join("".join(rng.choices(letters, k=rng.randint(2, 8))) for _ in range(WORDS))


NULLS = (Nonsense(), Refuser())
