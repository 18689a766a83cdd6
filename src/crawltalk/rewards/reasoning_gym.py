"""Problems and scores of reasoning-gym's generators (the extra `reasoning-gym`).

Audit a generator before you train on it (`audit_generator`): some score a reply that answers another problem, some pay
any words, some have no golds. Some scorers evaluate the reply as Python, with all of its built-ins: these get replies
of digits, brackets and operators or of words alone, and those that need more are refused.
"""

import inspect
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.types import Problem
from crawltalk.rewards.answers import spoken
from crawltalk.rewards.audit import Audit, audit
from crawltalk.rewards.pool import Pool
from crawltalk.rewards.verdict import Verdict, correct, undetermined, wrong

_EVALUATES = re.compile(r"\b(?:eval|exec|parse_expr|sympify)\((?!entry)")
_HARMLESS = re.compile(r"[\d\s+\-*/().,\[\]]{1,400}|[\w\s]{1,400}")
"""Numbers, or names: nothing that can call a function."""
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


@dataclass(frozen=True)
class Generator:
    """A generator with its settings, and the verifier of its problems."""

    name: str
    seed: int = 0
    size: int = 100
    settings: tuple[tuple[str, Any], ...] = ()
    """Its own, such as `(("min_numbers", 4),)`."""
    partial: bool = False
    """Pay partial scores too. Most generators pay for a reply in which the answer stands among others: hedging pays."""

    def problems(self) -> list[Problem]:
        """Its problems, without those that have no gold. The same seed makes the same ones."""
        return [
            Problem(prompt=prompt, answer=entry["answer"], task=f"reasoning_gym/{self.name}")
            for prompt, entry in _entries(self).items()
            if isinstance(entry["answer"], str)
        ]

    def __call__(self, problem: Problem, reply: str) -> Verdict:
        """The generator's score: correct where it is 1. The answer is what stands in the last `<answer>...</answer>`,
        or all that the reply says behind its reasoning.
        """
        entry = _entries(self).get(problem.prompt)
        if entry is None:
            return undetermined(
                f"{self.name} has not made this problem; seed, size and settings have to be the same"
            )
        found = _ANSWER.findall(text := spoken(reply))
        said = (found[-1] if found else text).strip()
        if not said:
            return wrong(reason="no answer")
        if _evaluates(self) and not _HARMLESS.fullmatch(said):
            return wrong(reason="the scorer would run it as Python")
        score = float(_dataset(self).score_answer(said, entry))
        if score >= 1:
            return correct()
        return wrong(score if self.partial else 0.0, f"the score is {score:g}")

    def warm_up(self) -> None:
        """Make the problems, which takes some generators seconds."""
        _entries(self)


@lru_cache(maxsize=64)
def _dataset(generator: Generator) -> Any:
    try:
        import reasoning_gym
    except ImportError:
        raise MissingInput("reasoning-gym is not installed; pip install 'crawltalk[reasoning-gym]'") from None
    try:
        return reasoning_gym.create_dataset(
            generator.name, seed=generator.seed, size=generator.size, **dict(generator.settings)
        )
    except (TypeError, ValueError, AssertionError) as error:
        raise BadInput(f"reasoning-gym makes no {generator.name!r}: {error}") from None


@lru_cache(maxsize=64)
def _entries(generator: Generator) -> dict[str, dict[str, Any]]:
    """Question -> what the generator made."""
    return {entry["question"]: entry for entry in _dataset(generator)}


@lru_cache(maxsize=64)
def _evaluates(generator: Generator) -> bool:
    """Whether the scorer evaluates a reply as Python."""
    return bool(_EVALUATES.search(inspect.getsource(type(_dataset(generator)).score_answer)))


def audit_generator(name: str, size: int = 20, seconds: float = 20.0) -> Audit:
    """The audit of a generator. Its scorer runs in a process of its own."""
    generator = Generator(name, size=size)
    with Pool(generator, seconds=seconds) as judge:
        return audit(name, judge, generator.problems())
