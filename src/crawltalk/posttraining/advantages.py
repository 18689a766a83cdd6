"""How much better than expected a reply was: the advantages of a group of replies to one problem."""

import statistics
from collections.abc import Sequence
from typing import Literal

AdvantageKind = Literal["dr_grpo", "grpo", "rloo", "reinforce"]

Rewards = Sequence[Sequence[float | None]]
"""Of each group the rewards of its replies; None: no reward, so the reply takes no part."""


def advantages(rewards: Rewards, kind: AdvantageKind) -> list[list[float | None]]:
    """The advantage of each reply, in the shape of the rewards.

    dr_grpo: less the mean of its group (Liu et al. 2025); grpo: that divided by the standard deviation of the group
    (Shao et al. 2024, section 4.1); rloo: less the mean of the group's others (Ahmadian et al. 2024); reinforce: less
    the mean of all groups (Williams 1992, with a baseline).
    """
    everything = [reward for group in rewards for reward in group if reward is not None]
    overall = sum(everything) / len(everything) if everything else 0.0
    return [_of_group(group, kind, overall) for group in rewards]


def _of_group(group: Sequence[float | None], kind: AdvantageKind, overall: float) -> list[float | None]:
    known = [reward for reward in group if reward is not None]
    mean = overall if kind == "reinforce" else sum(known) / max(1, len(known))
    factor = 1.0
    if kind == "grpo":
        factor = 1 / (statistics.pstdev(known) + 1e-6) if known else 1.0
    elif kind == "rloo":
        factor = len(known) / max(1, len(known) - 1)
    return [None if reward is None else (reward - mean) * factor for reward in group]


def has_signal(group: Sequence[float | None]) -> bool:
    """Whether the replies of a group were worth different rewards: else nothing is learned from them."""
    known = [reward for reward in group if reward is not None]
    return len(known) > 1 and max(known) > min(known)
