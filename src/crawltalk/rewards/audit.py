"""Whether a verifier may reward: tried on right replies, on replies that must not pass, and on both at once.

A policy finds whatever a verifier pays for. So before it rewards, a verifier is asked about replies whose verdict is
known: the golds, the golds of other problems, words, nothing, the question itself, and hedges such as `5 or 1`. A hedge
pays if one reply is right for two problems, of which one has the answer 5 and one has 1. Who takes the last of several
answers for the reply's (`1 of 2` in the table) is generous, but nothing is gained by naming two.
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
from crawltalk.rewards.verdict import Judge, Outcome, Verdict

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
    r"\boxed{{{gold}}} or \boxed{{{other}}}",
    r"\boxed{{{other}}}, \boxed{{{gold}}}",
)
SORTS = ("gold", "foreign", "words", "nothing", "question", "hedge", "1 of 2")
DRAWN, FOREIGN = 12, 3
"""Golds of other problems that are drawn for each, and those of them that are tried, at most."""
LUCK = 0.1
"""Of the problems: so many questions may have their answer where a reply has it (`How much is 0 + 3?`)."""
MOST_ERRORS = 0.05
"""Of a sort. A reply on which a verifier fails is not paid for, so a few are no way to fool it."""
KEPT = 10


class Tried(msgspec.Struct, kw_only=True):
    """What a verifier said of replies of one sort."""

    counts: dict[str, int]
    """Outcome -> replies."""
    paid: float | None
    """The highest reward of one of them."""
    least: float | None
    """The lowest reward of those that it holds to be right."""
    misjudged: list[str]
    """Some that it should not have judged so: the reply, the problem's gold, and the reason."""

    @property
    def tried(self) -> int:
        """All replies."""
        return sum(self.counts.values())

    @property
    def right(self) -> int:
        """Those that it holds to be right."""
        return self.counts.get(Outcome.CORRECT, 0)

    @property
    def errors(self) -> int:
        """Those on which it failed."""
        return self.counts.get(Outcome.ERROR, 0)

    @property
    def example(self) -> str:
        """The first that it misjudged."""
        return self.misjudged[0] if self.misjudged else "all undetermined"


class Audit(msgspec.Struct, kw_only=True):
    """What came of an audit."""

    verifier: str
    problems: int
    sorts: dict[str, Tried]
    """Sort of replies -> what was said of them."""

    @property
    def faults(self) -> list[str]:
        """Why it may not reward; empty if it may."""
        if "gold" not in self.sorts:
            return ["it has no golds"]
        gold = self.sorts["gold"]
        found = []
        if gold.errors or gold.counts.get(Outcome.WRONG) or not gold.right:
            found.append(f"it refuses {gold.tried - gold.right} of {gold.tried} golds ({gold.example})")
        for sort, tried in self.sorts.items():
            if sort not in ("gold", "1 of 2") and (fault := self._fault(sort, tried)):
                found.append(fault)
        return found

    def _fault(self, sort: str, tried: Tried) -> str | None:
        if tried.right > (LUCK * tried.tried if sort == "question" else 0):
            return f"it accepts {tried.right} of {tried.tried} of the sort {sort} ({tried.example})"
        if tried.errors > MOST_ERRORS * tried.tried:
            return f"it fails on {tried.errors} of {tried.tried} of the sort {sort} ({tried.example})"
        least, answered = self.sorts["gold"].least, self.sorts.get("foreign")
        if tried.paid is None or tried.right:
            return None
        if least is not None and tried.paid >= least:
            return f"it pays {tried.paid:g} for the sort {sort}, as much as for a gold"
        if answered and answered.paid is not None and tried.paid > answered.paid:
            return f"it pays {tried.paid:g} for the sort {sort}, and {answered.paid:g} for a wrong answer"
        return None


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
    `write` makes a reply of an answer, such as with reasoning before it.
    """
    asked = _replies(problems, right, write, random.Random(seed))
    verdicts = {
        sort: judge([problem for problem, _ in replies], [reply for _, reply in replies])
        for sort, replies in asked.items()
    }
    hedged = zip(verdicts["hedge"], verdicts.pop("other side"), strict=True)
    verdicts["1 of 2"] = verdicts["hedge"]
    verdicts["hedge"] = [one if one.outcome != Outcome.CORRECT else other for one, other in hedged]
    asked["1 of 2"] = asked["hedge"]
    sorts = {sort: _tried(asked[sort], verdicts[sort], sort) for sort in SORTS if asked[sort]}
    return Audit(verifier=name, problems=len(problems), sorts=sorts)


def _replies(
    problems: Sequence[Problem],
    right: Callable[[Problem], str],
    write: Callable[[str], str],
    rng: random.Random,
) -> dict[str, list[tuple[Problem, str]]]:
    """Sort -> replies to problems. Foreign golds are those of other problems, unless they are this problem's own in
    another spelling. `other side` has the replies of `hedge`, each to the problem of the other answer in it.
    """
    asked: dict[str, list[tuple[Problem, str]]] = {sort: [] for sort in (*SORTS[:-1], "other side")}
    solved = [(problem, right(problem)) for problem in problems]
    for problem, own in solved:
        drawn = {answer: other for other, answer in rng.sample(solved, min(DRAWN, len(solved)))}
        foreign = [answer for answer in drawn if not _same(answer, own)][:FOREIGN]
        asked["gold"].append((problem, write(own)))
        asked["foreign"] += [(problem, write(answer)) for answer in foreign]
        for sort, texts in (("words", WORDS), ("nothing", NOTHING)):
            said = [text for text in texts if not _same(text, own)]  # such as an empty list
            asked[sort] += [(problem, reply) for text in said for reply in dict.fromkeys((text, write(text)))]
        asked["question"].append((problem, write(problem.prompt)))
        for hedge in HEDGES if foreign else ():
            reply = write(hedge.format(gold=own, other=foreign[0]))
            asked["hedge"].append((problem, reply))
            asked["other side"].append((drawn[foreign[0]], reply))
    return asked


def _tried(replies: Sequence[tuple[Problem, str]], verdicts: Sequence[Verdict], sort: str) -> Tried:
    wanted = (Outcome.CORRECT,) if sort == "gold" else (Outcome.WRONG, Outcome.UNDETERMINED)
    misjudged = [
        f"{reply[-80:]!r} for {problem.answer[:40]!r}: {verdict.outcome} {verdict.reason}".rstrip()
        for (problem, reply), verdict in zip(replies, verdicts, strict=True)
        if verdict.outcome not in wanted
    ]
    rewards = [(verdict.outcome, verdict.reward) for verdict in verdicts if verdict.reward is not None]
    return Tried(
        counts=dict(Counter(verdict.outcome.value for verdict in verdicts)),
        paid=max((reward for _, reward in rewards), default=None),
        least=min((reward for outcome, reward in rewards if outcome == Outcome.CORRECT), default=None),
        misjudged=misjudged[:KEPT],
    )


def require(found: Audit) -> None:
    """Raise BadRecipe if the verifier may not reward."""
    if found.faults:
        raise BadRecipe(f"the verifier {found.verifier} may not reward: {'; '.join(found.faults)}")


def table(audits: Sequence[Audit]) -> str:
    """Markdown: a line for each verifier; of each sort, how many replies it held to be right, of how many; the highest
    reward of a reply that was no gold.
    """
    lines = [f"| verifier | problems | {' | '.join(SORTS)} | pays others | may reward |", "|---" * 11 + "|"]
    for found in audits:
        cells = [_cell(found.sorts.get(sort)) for sort in SORTS]
        paid = [tried.paid or 0.0 for sort, tried in found.sorts.items() if sort not in ("gold", "1 of 2")]
        cells += [f"{max(paid, default=0):.3g}", "no" if found.faults else "yes"]
        lines.append(f"| {found.verifier} | {found.problems} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(tried: Tried | None) -> str:
    if tried is None:
        return "-"
    return f"{tried.right}/{tried.tried}" + (f", {tried.errors} errors" if tried.errors else "")


def _same(answer: str, other: str) -> bool:
    """Whether two answers are one in two spellings. Units are no difference: `30` is `30^\\circ`."""
    if _letters(answer) == _letters(other):
        return True
    value = single(answer)
    bare = any(not re.search(r"[A-Za-z]", re.sub(r"\\[a-z]+", "", text)) for text in (answer, other))
    return bare and value is not None and value == single(other)


def _letters(answer: str) -> str:
    return re.sub(r"\\(?:left|right)|(?<=\\)[dt](?=frac)|[\s{}.:]", "", latex(answer)).casefold()
