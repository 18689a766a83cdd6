"""How far two labelers agree, and a judge with people.

Rankings are compared pair by pair: of two replies that both labelers ranked, the first is better, the second is, or
they are equal. InstructGPT's labelers agree on 73 % of pairs (Ouyang et al. 2022, section 3.4). Chance alone makes
labelers agree, too; Cohen's kappa takes that out (Cohen 1960): 1 is full agreement, 0 is chance. The pairs of one
ranking depend on each other, so figures of few rankings are worth less than the number of pairs suggests.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from itertools import combinations

import msgspec

from crawltalk.labels.rows import JUDGE, Ranking, Snapshot, Thumb


class Figures(msgspec.Struct, frozen=True):
    """Judgements of two on the same things."""

    count: int
    agreed: float | None
    """The share on which they agree; None without a judgement."""
    kappa: float | None
    """None where it is not defined: without a judgement, or if both always say the same."""


class Agreement(msgspec.Struct, frozen=True):
    """Of two labelers, or of many pairs of labelers together."""

    who: str
    """`a, b`; for all together `people` or the judge's name."""
    pairs: Figures
    """Of replies that both ranked."""
    thumbs: Figures
    rankings: int
    """Rankings with two replies or more that both ranked."""
    tau: float | None
    """Kendall's tau-b between two rankings, mean over those where it is defined."""


def cohen_kappa(judgements: Sequence[tuple[Hashable, Hashable]]) -> float | None:
    """Cohen's kappa of two labelers, whose judgements on the same things are given in pairs; None where it is not
    defined (Cohen 1960, equation 1).
    """
    count = len(judgements)
    ones, others = Counter(one for one, _ in judgements), Counter(other for _, other in judgements)
    by_chance = sum(ones[each] * others[each] for each in ones)
    if by_chance == count**2:
        return None
    agreed = sum(one == other for one, other in judgements)
    return (count * agreed - by_chance) / (count**2 - by_chance)


def kendall_tau(ones: Sequence[float], others: Sequence[float]) -> float | None:
    """Kendall's tau-b, which allows for ties, between two rankings of the same things; None if one of them ties all
    (Kendall 1945).
    """
    balance, ones_apart, others_apart = 0, 0, 0
    for (one, other), (next_one, next_other) in combinations(zip(ones, others, strict=True), 2):
        first, second = _sign(one - next_one), _sign(other - next_other)
        balance += first * second
        ones_apart += first != 0
        others_apart += second != 0
    return balance / math.sqrt(ones_apart * others_apart) if ones_apart and others_apart else None


def agreements(snapshot: Snapshot) -> list[Agreement]:
    """All people together, each judge with all people, then each two labelers who judged the same."""
    labelers = sorted({label.labeler for label in snapshot.labels})
    people = [name for name in labelers if not name.startswith(JUDGE)]
    judged = {name: _judged(snapshot, name) for name in labelers}
    together = [("people", list(combinations(people, 2)))]
    together += [(name, [(name, person) for person in people]) for name in labelers if name.startswith(JUDGE)]
    rows = [_row(who, [(judged[one], judged[other]) for one, other in twos]) for who, twos in together]
    rows += [
        _row(f"{one}, {other}", [(judged[one], judged[other])]) for one, other in combinations(labelers, 2)
    ]
    return [row for row in rows if row.pairs.count or row.thumbs.count]


class _Judged(msgspec.Struct):
    """What one labeler says."""

    ranks: dict[str, dict[str, int]]
    """Prompt -> candidate -> rank."""
    thumbs: dict[str, bool]
    """By candidate."""


def _judged(snapshot: Snapshot, labeler: str) -> _Judged:
    judged = _Judged({}, {})
    for label in snapshot.labels:
        if label.labeler == labeler:
            match label.value:
                case Ranking(ranks):
                    judged.ranks[label.prompt] = ranks
                case Thumb(candidate, up):
                    judged.thumbs[candidate] = up
    return judged


def _row(who: str, twos: Iterable[tuple[_Judged, _Judged]]) -> Agreement:
    pairs: list[tuple[Hashable, Hashable]] = []
    thumbs: list[tuple[Hashable, Hashable]] = []
    taus: list[float | None] = []
    for one, other in twos:
        thumbs += [(up, other.thumbs[each]) for each, up in one.thumbs.items() if each in other.thumbs]
        for prompt, ranks in one.ranks.items():
            ranked = [
                (rank, others[each])
                for each, rank in sorted(ranks.items())
                if each in (others := other.ranks.get(prompt, {}))
            ]
            pairs += [
                (_sign(mine - my_next), _sign(theirs - their_next))
                for (mine, theirs), (my_next, their_next) in combinations(ranked, 2)
            ]
            if len(ranked) > 1:
                taus.append(kendall_tau(*zip(*ranked, strict=True)))
    defined = [tau for tau in taus if tau is not None]
    tau = math.fsum(defined) / len(defined) if defined else None
    return Agreement(who, _figures(pairs), _figures(thumbs), len(taus), tau)


def _figures(judgements: Sequence[tuple[Hashable, Hashable]]) -> Figures:
    count = len(judgements)
    agreed = sum(one == other for one, other in judgements) / count if count else None
    return Figures(count, agreed, cohen_kappa(judgements))


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
