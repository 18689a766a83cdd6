"""What the claims about reinforcement share: a small model, its language of chains of calculations, demonstrators who
make mistakes, and the trainings.

A problem is a chain of additions and multiplications, of which only the last digit counts: `3+4*7+2?` is ((3 + 4) * 7)
+ 2. A terse answer is the digit, a worked one writes every step: `3+4=7;7*7=9;9+2=1;1`.
"""

import random
from collections.abc import Callable

from crawltalk.tokenizer import Tokenizer
from crawltalk.tokenizer.patterns import GPT4
from crawltalk.tokenizer.tokenizer import END_OF_TEXT
from crawltalk.train.batches import Batches, packed_rows

ROW = 128
Example = tuple[list[int], list[bool]]
"""Token ids, and which of them are learned."""


def characters(alphabet: str) -> Tokenizer:
    """A tokenizer whose tokens are these ASCII characters and the end of a text."""
    vocab = {character.encode(): index for index, character in enumerate(alphabet)}
    return Tokenizer(vocab, None, GPT4, {END_OF_TEXT: len(vocab)})


def fresh(draw: Callable[[random.Random], Example], count: int, seed: int | str) -> Batches:
    """Batches of `count` examples that are drawn anew in each step."""

    def batch(step: int):
        rng = random.Random(f"{seed} {step}")
        return packed_rows([draw(rng) for _ in range(count)], ROW, 10**9, 0)[0](0)

    return batch
