"""Search on top of a policy, as AlphaGo plays: the network says which moves are worth a look and what a position is
worth, and a tree of positions corrects both.
"""

from dataclasses import dataclass

import numpy as np

from crawltalk.games.board import BOARD, COLUMN, ONE_COLUMN, WIDTH, playable, winning_cells
from crawltalk.games.players import columns_of
from crawltalk.games.policy import Policy

SHIFTS = COLUMN * np.arange(WIDTH)


@dataclass(frozen=True)
class Searching:
    """Monte Carlo tree search with PUCT (AlphaGo Zero; Silver et al. 2017, methods), without noise at the root. All
    positions are searched side by side, with one evaluation of the network a simulation.
    """

    policy: Policy
    simulations: int = 64
    exploration: float = 1.5
    """How much the policy's probabilities weigh against the values that were found."""

    def probabilities(self, own: np.ndarray, stones: np.ndarray) -> np.ndarray:
        """The share of the simulations that began with each column, float32 [N, 6]."""
        tree = _Tree(own, stones, self.simulations, self.exploration)
        tree.evaluate(np.zeros(len(own), np.int64), self.policy)
        for _ in range(self.simulations):
            tree.simulate(self.policy)
        visits = tree.visits[:, 0]
        return (visits / visits.sum(1, keepdims=True)).astype(np.float32)


class _Tree:
    """A tree for each of N positions, with room for M = simulations + 1 nodes; node 0 is the position itself. Arrays of
    moves are [N, M, 6].
    """

    def __init__(self, own: np.ndarray, stones: np.ndarray, simulations: int, exploration: float) -> None:
        self.exploration, self.count, self.rows = exploration, 1, np.arange(len(own))
        size = (len(own), simulations + 1)
        self.own, self.stones = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self.own[:, 0], self.stones[:, 0] = own, stones
        self.over, self.values = np.zeros(size, bool), np.zeros(size)
        """Whether a game ends there, and what a node is worth to the player to move."""
        self.children = np.full((*size, WIDTH), -1)
        self.priors, self.visits, self.totals = (np.zeros((*size, WIDTH)) for _ in range(3))
        self.legal = np.zeros((*size, WIDTH), bool)

    def evaluate(self, nodes: np.ndarray, policy: Policy) -> None:
        """Ask the network about a node of each tree, unless the game is over there."""
        rows = self.rows[~self.over[self.rows, nodes]]
        if len(rows):
            at = rows, nodes[rows]
            own, stones = self.own[at], self.stones[at]
            log_probs, self.values[at] = policy.evaluate(own, stones)
            self.priors[at], self.legal[at] = np.exp(log_probs), columns_of(playable(stones))

    def simulate(self, policy: Policy) -> None:
        """Walk down each tree to a position that it does not hold yet, or to the end of a game; add and evaluate it;
        and tell all moves on the way what it is worth.
        """
        nodes, going, way = np.zeros(len(self.rows), np.int64), self.rows, []
        while len(going):
            at = going, nodes[going]
            columns = self._choose(at)
            way.append((*at, columns))
            below = self.children[*at, columns]
            new = below < 0
            self._add(going[new], at[1][new], columns[new])
            nodes[going] = np.where(new, self.count, below)
            going = going[~new & ~self.over[going, nodes[going]]]
        self.evaluate(nodes, policy)
        self.count += 1
        values = self.values[self.rows, nodes]
        for rows, above, columns in reversed(way):
            values[rows] *= -1  # what is good for who moves next is bad for who moved
            self.visits[rows, above, columns] += 1
            self.totals[rows, above, columns] += values[rows]

    def _choose(self, at: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """The columns of the highest value found so far plus what is hoped for."""
        visits = self.visits[at]
        found = self.totals[at] / np.maximum(visits, 1)
        hope = self.priors[at] * np.sqrt(visits.sum(1, keepdims=True) + 1) / (1 + visits)
        return np.where(self.legal[at], found + self.exploration * hope, -np.inf).argmax(1)

    def _add(self, rows: np.ndarray, above: np.ndarray, columns: np.ndarray) -> None:
        """The positions after these moves as new nodes."""
        own, stones, shifts = self.own[rows, above], self.stones[rows, above], SHIFTS[columns]
        cells = (stones + (np.int64(1) << shifts)) & (ONE_COLUMN << shifts)
        won = winning_cells(own, stones) & cells != 0
        self.own[rows, self.count], self.stones[rows, self.count] = stones ^ own, stones | cells
        self.over[rows, self.count] = won | (stones | cells == BOARD)
        self.values[rows, self.count] = np.where(won, -1.0, 0.0)  # to the player who has lost
        self.children[rows, above, columns] = self.count
