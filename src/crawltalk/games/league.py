"""All that is trained with one human as the teacher: imitators of more and more of its games, and a policy that begins
as the best of them and plays itself.

FOLDER/league.json                             who the human is
FOLDER/imitation-100000/policy.safetensors     after so many games of the human
FOLDER/imitation-other/policy.safetensors      another imitator: of other games, from other weights
FOLDER/self-play/policy.safetensors            after self-play; log.jsonl, and older selves in pool/
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
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

EPOCHS = {1_000: 10.0, 10_000: 5.0, 30_000: 3.0, 100_000: 2.0}
"""Games of the human -> how often an imitator sees each."""
LARGEST = max(EPOCHS)
EVALUATION_GAMES = 400
RULES = "league.json"


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """league.json."""

    blind: str
    """The human's blind spot, one of BLIND_SPOTS."""
    depth: int
    seed: int


@dataclass(frozen=True)
class League:
    """What was trained."""

    folder: Path
    rules: Rules

    @property
    def human(self) -> Human:
        """The teacher."""
        return Human(self.rules.depth, BLIND_SPOTS[self.rules.blind])

    def imitator(self, games: int | str = LARGEST) -> Policy:
        """The policy that has learned from so many games of the human, or the `other` one."""
        return load_policy(self.folder / f"imitation-{games}" / "policy.safetensors")

    def learner(self) -> Policy:
        """The policy after self-play."""
        return load_policy(self.folder / "self-play" / "policy.safetensors")

    def snapshots(self) -> list[tuple[int, Path]]:
        """(games played, file) of the policy during self-play."""
        return snapshots(self.folder / "self-play" / "pool")

    def record(self, games: int, stream: int) -> Record:
        """Games of the human against itself; each stream has its own."""
        return record_games(self.human, games, np.random.default_rng([self.rules.seed, 0, stream]))


TRAINING, HELD_OUT, OTHER = range(3)
"""Streams of the human's games."""


def train_league(
    folder: str | Path,
    rules: Rules,
    machine: Machine,
    progress: Progress,
    *,
    sizes: Sequence[int] = (LARGEST,),
    other: bool = False,
    self_play: SelfPlay | None = None,
) -> League:
    """Train what is not there yet: imitators of so many games, the `other` imitator if asked for, and the policy that
    plays itself from the largest one on. It computes in fp32 on the CPU. What is trained depends on the arguments
    alone, also after an interruption.
    """
    folder, machine = Path(folder), replace(machine, device="cpu", dtype="float32")
    folder.mkdir(parents=True, exist_ok=True)
    league = League(folder, rules)
    write_atomically(folder / RULES, msgspec.json.format(msgspec.json.encode(rules)) + b"\n")
    missing = [size for size in sizes if not (folder / f"imitation-{size}" / "policy.safetensors").exists()]
    record = league.record(max(missing), TRAINING) if missing else None
    for size in missing:
        assert record is not None
        out = folder / f"imitation-{size}"
        imitate(record.first(size), EPOCHS[size], rules.seed, out, machine, progress)
    if other:
        record, out = league.record(30_000, OTHER), folder / "imitation-other"
        imitate(record, EPOCHS[30_000], rules.seed + 1000, out, machine, progress)
    out = folder / "self-play"
    if not (out / "policy.safetensors").exists():
        imitator = league.imitator(max(sizes))
        policy, human, config = league.imitator(max(sizes)).train(), league.human, self_play or SelfPlay()

        def evaluate(done: int, policy: Policy) -> dict[str, Any]:
            rng = np.random.default_rng([rules.seed, 2, done])
            return {
                "games": done // config.updates * config.games,
                "vs_human": match(policy, human, EVALUATION_GAMES, rng),
                "vs_imitator": match(policy, imitator, EVALUATION_GAMES, rng),
            }

        reinforce(policy, imitator, human, config, rules.seed, out, machine, progress, evaluate)
        save_policy(policy, out / "policy.safetensors")
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
