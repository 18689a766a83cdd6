"""Whether a verifier may reward: tried on right replies, on replies that must not pass, and on both at once.

A policy finds whatever a verifier pays for. So before it rewards, a verifier is asked about replies whose verdict is
known: the golds, the golds of other problems, words, nothing, the question itself, and hedges such as `5 or 1`.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from crawltalk.core.errors import BadRecipe
from crawltalk.core.types import Problem
from crawltalk.rewards.numbers import single
from crawltalk.rewards.spelling import latex
from crawltalk.rewards.verdict import Judge, Outcome

WORDS = (
    "I do not know.",
    "The answer is correct.",
    "the the the the the the the the",
    "Yes, that is right. Thank you for your question!",
    "Let me think about this step by step.",
)
NOTHING = ("", " ", "\n\n", ".", "...", "\\boxed{}", "####", "A:", "<think></think>", "{}", "[]", "\\text{}")
HEDGES = (
    "{gold} or {other}",
    "{other} or {gold}",
    "{gold}, {other}",
    "{other}; {gold}",
    "Either {other} or {gold}.",
)
BOXED_HEDGES = (r"\boxed{{{gold}}} or \boxed{{{other}}}", r"\boxed{{{other}}}, \boxed{{{gold}}}")
FOREIGN = 3
"""Golds of other problems that are tried on each."""


class Tried(msgspec.Struct, kw_only=True):
    """What a verifier said of replies of one sort."""

    counts: dict[str, int]
    """Outcome -> replies."""
    paid: float | None
    """The highest reward."""
    misjudged: list[str]
    """Some of those it should not have judged so: `reply`, the problem's gold, and the reason."""

    @property
    def tried(self) -> int:
        """All replies."""
        return sum(self.counts.values())

    @property
    def right(self) -> int:
        """Those that it holds to be right."""
        return self.counts.get(Outcome.CORRECT, 0)


class Audit(msgspec.Struct, kw_only=True):
    """What came of an audit."""

    verifier: str
    problems: int
    sorts: dict[str, Tried]
    """gold, foreign, words, nothing, question, hedge -> what was said of them."""
    lowest_gold: float | None
    """The lowest reward of a gold that it holds to be right."""

    @property
    def faults(self) -> list[str]:
        """Why it may not reward; empty if it may."""
        if "gold" not in self.sorts:
            return ["it has no golds"]
        gold = self.sorts["gold"]
        refused = gold.counts.get(Outcome.WRONG, 0) + gold.counts.get(Outcome.ERROR, 0)
        found = []
        if refused or not gold.right:
            found.append(f"it refuses {gold.tried - gold.right} of {gold.tried} golds ({_example(gold)})")
        for sort, tried in self.sorts.items():
            if sort == "gold":
                continue
            if tried.right:
                found.append(
                    f"it accepts {tried.right} of {tried.tried} of the sort {sort} ({_example(tried)})"
                )
            elif failures := tried.counts.get(Outcome.ERROR, 0):
                found.append(
                    f"it fails on {failures} of {tried.tried} of the sort {sort} ({_example(tried)})"
                )
            if (
                not tried.right
                and None not in (tried.paid, self.lowest_gold)
                and tried.paid >= self.lowest_gold
            ):
                found.append(f"it pays {tried.paid:g} for the sort {sort}, as much as for a gold")
        return found


def _example(tried: Tried) -> str:
    return tried.misjudged[0] if tried.misjudged else "all undetermined"


def audit(
    name: str,
    judge: Judge,
    problems: Sequence[Problem],
    *,
    right: Callable[[Problem], str] = lambda problem: problem.answer,
    write: Callable[[str], str] = str,
    seed: int = 0,
) -> Audit:
    """Try a judge on problems.

    `right` gives the answer that solves a problem, where `Problem.answer` is something else, such as a schema.
    `write` makes a reply of an answer, such as with reasoning before it. Foreign golds are those of other problems,
    unless they are this problem's own in another spelling.
    """
    rng = random.Random(seed)
    answers = [right(problem) for problem in problems]
    others = [
        [answer for answer in rng.sample(answers, min(12, len(answers))) if not _same(answer, own)]
        for own in answers
    ]
    asked: dict[str, list[tuple[Problem, str]]] = {
        sort: [] for sort in ("gold", "foreign", "words", "nothing", "question", "hedge")
    }
    for problem, own, different in zip(problems, answers, others, strict=True):
        asked["gold"].append((problem, write(own)))
        asked["foreign"] += [(problem, write(answer)) for answer in dict.fromkeys(different[:FOREIGN])]
        asked["words"] += [(problem, reply) for text in WORDS for reply in dict.fromkeys((text, write(text)))]
        asked["nothing"] += [
            (problem, reply) for text in NOTHING for reply in dict.fromkeys((text, write(text)))
        ]
        asked["question"].append((problem, write(problem.prompt)))
        for hedge in (*HEDGES, *BOXED_HEDGES) if different else ():
            asked["hedge"].append((problem, write(hedge.format(gold=own, other=different[0]))))
    sorts, lowest = {}, None
    for sort, replies in asked.items():
        if not replies:
            continue
        verdicts = judge([problem for problem, _ in replies], [reply for _, reply in replies])
        rewards = [verdict.reward for verdict in verdicts if verdict.reward is not None]
        wanted = (Outcome.CORRECT,) if sort == "gold" else (Outcome.WRONG, Outcome.UNDETERMINED)
        sorts[sort] = Tried(
            counts=dict(Counter(verdict.outcome.value for verdict in verdicts)),
            paid=max(rewards, default=None),
            misjudged=[
                f"{reply[-80:]!r} for {problem.answer[:40]!r}: {verdict.outcome} {verdict.reason}".rstrip()
                for (problem, reply), verdict in zip(replies, verdicts, strict=True)
                if verdict.outcome not in wanted
            ][:10],
        )
        if sort == "gold":
            lowest = min(
                (v.reward for v in verdicts if v.outcome == Outcome.CORRECT and v.reward is not None),
                default=None,
            )
    return Audit(verifier=name, problems=len(problems), sorts=sorts, lowest_gold=lowest)


def require(found: Audit) -> None:
    """Raise BadRecipe if the verifier may not reward."""
    if found.faults:
        raise BadRecipe(f"the verifier {found.verifier} may not reward: {'; '.join(found.faults)}")


def table(audits: Sequence[Audit]) -> str:
    """Markdown: a line for each verifier; of each sort, how many replies it held to be right, of how many; the highest
    reward of a reply that was no gold.
    """
    sorts = ("gold", "foreign", "words", "nothing", "question", "hedge")
    lines = [f"| verifier | problems | {' | '.join(sorts)} | pays others | may reward |", "|---" * 10 + "|"]
    for found in audits:
        cells = [
            f"{tried.right}/{tried.tried}" if (tried := found.sorts.get(sort)) else "-" for sort in sorts
        ]
        paid = [
            tried.paid for sort, tried in found.sorts.items() if sort != "gold" and tried.paid is not None
        ]
        cells += [f"{max(paid, default=0):.3g}", "no" if found.faults else "yes"]
        lines.append(f"| {found.verifier} | {found.problems} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _same(answer: str, other: str) -> bool:
    """Whether two answers are one in two spellings. Units are no difference: `30` is `30^\\circ`."""
    if _letters(answer) == _letters(other):
        return True
    value = single(answer)
    bare = any(not re.search(r"[A-Za-z]", re.sub(r"\\[a-z]+", "", text)) for text in (answer, other))
    return bare and value is not None and value == single(other)


def _letters(answer: str) -> str:
    return re.sub(r"\\(?:left|right)|(?<=\\)[dt](?=frac)|[\s{}.]", "", latex(answer)).casefold()
