"""What reinforcement will do to the length of replies, said before it does.

The policy gradient makes a reply likelier by how much better it is than its group. So, to first order, the mean length
changes by the covariance of length and reward within groups: it rises only where longer replies are worth more, however
rare they are, and falls where they are worth less (`lab/rl_selects.py`, `lab/rl_amplifies.py`).
"""

import math
from collections.abc import Sequence

import msgspec

CLEAR = 2.0
"""Standard errors from which on the sign of the covariance is believed."""


class Forecast(msgspec.Struct, frozen=True):
    """What rewarded replies of a policy say of its training."""

    cut: float
    """The mean length, in tokens; a longer reply has more."""
    longer: float
    """The share of longer replies."""
    reward_longer: float
    reward_shorter: float
    pull: float
    """The covariance of length and reward within groups, in its standard errors."""

    def __str__(self) -> str:
        if not self.longer:
            return "all replies are of one length, so RL cannot change it"
        if abs(self.pull) < CLEAR:
            will = "RL has no clear reason to change the length"
        else:
            will = f"RL will {'lengthen' if self.pull > 0 else 'shorten'} answers here"
        return (
            f"replies of more than {self.cut:.0f} tokens ({self.longer:.0%}) are worth {self.reward_longer:.2f}, "
            f"shorter ones {self.reward_shorter:.2f}: {will}"
        )


def length_forecast(lengths: Sequence[Sequence[int]], rewards: Sequence[Sequence[float | None]]) -> Forecast:
    """From the lengths and rewards of groups of replies, each to one problem; replies without a reward do not count."""
    known = [
        [(length, reward) for length, reward in zip(*group, strict=True) if reward is not None]
        for group in zip(lengths, rewards, strict=True)
    ]
    everything = [pair for group in known for pair in group]
    cut = _mean([length for length, _ in everything])
    longer = [reward for length, reward in everything if length > cut]
    shorter = [reward for length, reward in everything if length <= cut]
    covariances = [_covariance(group) for group in known if group]
    error = math.sqrt(sum(one * one for one in covariances))
    return Forecast(
        cut=round(cut, 2),
        longer=round(len(longer) / max(1, len(everything)), 4),
        reward_longer=round(_mean(longer), 4),
        reward_shorter=round(_mean(shorter), 4),
        pull=round(sum(covariances) / error, 2) if error else 0.0,
    )


def _covariance(pairs: Sequence[tuple[int, float]]) -> float:
    """Summed over the replies of a group."""
    length, reward = (_mean([pair[index] for pair in pairs]) for index in (0, 1))
    return sum((one - length) * (worth - reward) for one, worth in pairs)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
