"""The JSON of the page's games: a position of connect four, what the policies of the lab would play there, and the
solver's verdict on each column.
"""

import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Struct
from starlette.routing import Route

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.games.board import CELLS, COLUMN, HEIGHT, WIDTH, Position
from crawltalk.games.league import RULES, League, load_league
from crawltalk.games.players import Player
from crawltalk.games.solver import ILLEGAL, Solver

LEAGUES = "connect_four"
"""The folder of policies in that of the lab."""
FINDINGS = "move_37"
"""The experiment whose proved moves can be looked at."""
Bits = Annotated[int, Meta(ge=0, lt=1 << (COLUMN * WIDTH))]


class LeaguesRequest(Struct):
    """Which policies there are."""


class PositionRequest(Struct):
    """A position, and whose opinions are asked for."""

    league: Annotated[str, Meta(max_length=200)]
    own: Bits = 0
    """The stones of the player to move."""
    stones: Bits = 0


def game_routes(lab: Path | None, get: Callable[..., Route]) -> list[Route]:
    """The routes of the games, over the policies in a folder of the lab."""
    games = _Games(lab)
    return [
        get("/api/games", LeaguesRequest, games.leagues),
        get("/api/games/position", PositionRequest, games.position),
    ]


class _Games:
    def __init__(self, lab: Path | None) -> None:
        self._lab = lab
        self._solver: Solver | None = None
        self._lock = threading.Lock()  # one solver, and one table, for all requests

    def leagues(self, _: LeaguesRequest) -> dict[str, Any]:
        """The policies that were trained, and the proved moves of each."""
        return {"leagues": [self._describe(name, self._league(name)) for name in self._names()]}

    def position(self, request: PositionRequest) -> dict[str, Any]:
        """A position: its stones, and for each column where it leads to and what everybody thinks of it."""
        league, position = self._league(request.league), _position(request.own, request.stones)
        answer: dict[str, Any] = {
            "columns": _columns(position),
            "to_move": position.stones.bit_count() % 2,
            "over": position.over,
            "won": position.won,
            "moves": [],
        }
        if position.over:
            return answer
        own, stones = np.array([position.own], np.int64), np.array([position.stones], np.int64)
        players: dict[str, Player] = {"human": league.human} | _policies(league.folder)
        opinions = {name: player.probabilities(own, stones)[0].tolist() for name, player in players.items()}
        with self._lock:
            self._solver = self._solver or Solver()
            scores = self._solver.scores(position.own, position.stones).tolist()
        best = max(scores)
        for column in position.legal():
            after = position.play(column)
            answer["moves"].append(
                {
                    "column": column,
                    "after": {"own": after.own, "stones": after.stones},
                    "verdict": _verdict(scores[column], position.stones.bit_count()),
                    "keeps": _sign(scores[column]) == _sign(best),
                    **{name: each[column] for name, each in opinions.items()},
                }
            )
        return answer

    def _names(self) -> list[str]:
        if self._lab is None:
            return []
        root = self._lab / LEAGUES
        done = [
            path.parent
            for path in root.glob(f"*/*/{RULES}")
            if (path.parent / "self-play/policy.safetensors").exists()
        ]
        return sorted(path.relative_to(root).as_posix() for path in done)

    def _league(self, name: str) -> League:
        if self._lab is None or name not in self._names():
            raise MissingInput(
                f"there are no policies {name[:100]!r} here; train some with: crawltalk lab {FINDINGS}"
            )
        return load_league(self._lab / LEAGUES / name)

    def _describe(self, name: str, league: League) -> dict[str, Any]:
        rules = league.rules
        return {
            "name": name,
            "blind": rules.blind,
            "depth": rules.depth,
            "found": self._findings(rules.seed, rules.blind),
        }

    def _findings(self, seed: int, blind: str) -> list[dict[str, Any]]:
        assert self._lab is not None
        path = self._lab / FINDINGS / f"seed-{seed}.json"
        if not path.is_file():
            return []
        try:
            rarest = msgspec.json.decode(path.read_bytes())["figures"][blind]["rarest"]
        except (msgspec.MsgspecError, KeyError, TypeError):
            raise BadInput(f"{path} is damaged; remove it, and run: crawltalk lab {FINDINGS}") from None
        return [{name: one[name] for name in ("own", "stones", "imitated", "learned")} for one in rarest]


@lru_cache(maxsize=8)
def _policies(folder: Path) -> dict[str, Player]:
    league = League(folder, load_league(folder).rules)
    return {"imitator": league.imitator(), "learner": league.learner()}


def _position(own: int, stones: int) -> Position:
    """Raises BadInput for what no game leads to."""
    columns = [stones >> (COLUMN * column) & ((1 << COLUMN) - 1) for column in range(WIDTH)]
    gaps = any(column & (column + 1) or column.bit_length() > HEIGHT for column in columns)
    if gaps or own & ~stones or own.bit_count() != stones.bit_count() // 2:
        raise BadInput("that is no position of connect four; begin a new game")
    return Position.of(own, stones)


def _columns(position: Position) -> list[list[int]]:
    """The stones of each column from below: 0 for the player who began, 1 for the other."""
    count = position.stones.bit_count()
    heights = [
        (position.stones >> (COLUMN * column) & ((1 << COLUMN) - 1)).bit_count() for column in range(WIDTH)
    ]
    return [
        [(count + (not position.own >> (COLUMN * column + row) & 1)) % 2 for row in range(height)]
        for column, height in enumerate(heights)
    ]


def _sign(score: int) -> int:
    return (score > 0) - (score < 0)


def _verdict(score: int, count: int) -> dict[str, Any]:
    """What a move leads to, and by which move of the winner from then on, this one included if it is theirs."""
    assert score != ILLEGAL
    if score > 0:
        return {"result": "wins", "moves": (CELLS + 1 - count) // 2 + 1 - score}
    if score < 0:
        return {"result": "loses", "moves": (CELLS - count) // 2 + 1 + score}
    return {"result": "draws", "moves": None}
