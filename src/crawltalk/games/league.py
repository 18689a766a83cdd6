"""All that is trained with one human as the teacher: imitators of more and more of its games, and a policy that begins
as the best of them and plays itself.

FOLDER/league.json                             who the human is, and how the others learn
FOLDER/imitation-100000/policy.safetensors     after so many games of the human
FOLDER/imitation-other/policy.safetensors      another imitator: of other games, from other weights
FOLDER/self-play/policy.safetensors            after self-play; log.jsonl, and older selves in pool/
"""

from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.files import write_atomically
from crawltalk.games.imitation import Record, imitate, record_games
from crawltalk.games.play import match
from crawltalk.games.players import BLIND_SPOTS, Human
from crawltalk.games.policy import Policy, load_policy, save_policy
from crawltalk.games.selfplay import SelfPlay, reinforce, snapshots
from crawltalk.recipe import Machine
from crawltalk.run.stage import Progress

EPOCHS = MappingProxyType({1_000: 10.0, 10_000: 5.0, 30_000: 3.0, 100_000: 2.0})
"""Games of the human -> how often an imitator sees each."""
EVALUATION_GAMES = 400
RULES, POLICY = "league.json", "policy.safetensors"


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who the teacher is, and how others learn: league.json."""

    blind: str
    """The human's blind spot, one of BLIND_SPOTS."""
    depth: int = 4
    seed: int = 0
    epochs: dict[int, float] = msgspec.field(default_factory=lambda: dict(EPOCHS))
    """Games of the human -> how often an imitator sees each."""
    self_play: SelfPlay = msgspec.field(default_factory=SelfPlay)


@dataclass(frozen=True)
class League:
    """What was trained."""

    folder: Path
    rules: Rules

    @property
    def human(self) -> Human:
        """The teacher."""
        return Human(self.rules.depth, BLIND_SPOTS[self.rules.blind])

    def imitator(self, games: int | str | None = None) -> Policy:
        """The policy that has learned from so many games of the human, the most if absent; or the `other` one."""
        return load_policy(self.folder / f"imitation-{games or max(self.rules.epochs)}" / POLICY)

    def learner(self) -> Policy:
        """The policy after self-play."""
        return load_policy(self.folder / "self-play" / POLICY)

    def snapshots(self) -> list[tuple[int, Path]]:
        """(games played, file) of the policy during self-play."""
        return snapshots(self.folder / "self-play" / "pool")

    def record(self, games: int, stream: int) -> Record:
        """Games of the human against itself; each stream has its own."""
        return record_games(self.human, games, np.random.default_rng([self.rules.seed, 0, stream]))


TRAINING, HELD_OUT, OTHER = range(3)
"""Streams of the human's games."""


def train_league(
    folder: str | Path, rules: Rules, machine: Machine, progress: Progress, *, other: bool = False
) -> League:
    """Train what is not there yet: the imitators, the `other` one if asked for, and the policy that plays itself from
    the largest one on. It computes in fp32 on the CPU. What is trained depends on the arguments alone, also after an
    interruption. Raises BadInput if the folder has policies of other rules.
    """
    folder, machine = Path(folder), replace(machine, device="cpu", dtype="float32")
    if (folder / RULES).exists() and load_league(folder).rules != rules:
        raise BadInput(
            f"{folder} has policies of other rules; remove it, or choose another folder with --out"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / RULES, msgspec.json.format(msgspec.json.encode(rules)) + b"\n")
    league = League(folder, rules)
    missing = {size: folder / f"imitation-{size}" for size in rules.epochs}
    missing = {size: out for size, out in missing.items() if not (out / POLICY).exists()}
    record = league.record(max(missing), TRAINING) if missing else None
    for size, out in missing.items():
        assert record is not None
        imitate(record.first(size), rules.epochs[size], rules.seed, out, machine, progress)
    out = folder / "imitation-other"
    if other and not (out / POLICY).exists():
        size = sorted(rules.epochs)[-2:][0]
        imitate(league.record(size, OTHER), rules.epochs[size], rules.seed + 1000, out, machine, progress)
    out = folder / "self-play"
    if not (out / POLICY).exists():
        imitator, policy, human = league.imitator(), league.imitator().train(), league.human

        def evaluate(done: int, policy: Policy) -> dict[str, Any]:
            rng = np.random.default_rng([rules.seed, 2, done])
            return {
                "games": done // rules.self_play.updates * rules.self_play.games,
                "vs_human": match(policy, human, EVALUATION_GAMES, rng),
                "vs_imitator": match(policy, imitator, EVALUATION_GAMES, rng),
            }

        reinforce(policy, imitator, human, rules.self_play, rules.seed, out, machine, progress, evaluate)
        save_policy(policy, out / POLICY)
    return league


def load_league(folder: str | Path) -> League:
    """What `train_league` has left in a folder. Raises MissingInput, or BadInput if the file is damaged."""
    path = Path(folder) / RULES
    if not path.is_file():
        raise MissingInput(
            f"{folder} has no policies for connect four; train some with: crawltalk lab move_37"
        )
    try:
        rules = msgspec.json.decode(path.read_bytes(), type=Rules)
    except msgspec.MsgspecError as error:
        raise BadInput(f"{path} is damaged ({error}); remove {folder} and train again") from None
    if rules.blind not in BLIND_SPOTS:
        raise BadInput(
            f"{path} names the blind spot {rules.blind[:40]!r}; there are: {', '.join(BLIND_SPOTS)}"
        )
    return League(Path(folder), rules)
