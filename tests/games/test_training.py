"""The policy, imitation and self-play, with a training that takes a second."""

import numpy as np
import pytest
import torch

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.jsonl import read_jsonl
from crawltalk.games.board import mirror, playable
from crawltalk.games.imitation import accuracy, imitate, record_games
from crawltalk.games.league import Rules, load_league, train_league
from crawltalk.games.move37 import Count, as_figures, count_moves, positions
from crawltalk.games.play import Moves, match
from crawltalk.games.players import Human, Random, columns_of
from crawltalk.games.policy import Policy, load_policy, save_policy
from crawltalk.games.selfplay import SelfPlay, _returns, reinforce, snapshots
from crawltalk.games.solver import Solver
from crawltalk.recipe import Machine
from crawltalk.run.stage import Progress
from support.games import undecided

MACHINE = Machine(workers=1, device="cpu", dtype="float32")
SHORT = SelfPlay(rounds=3, games=64, updates=2, snapshot_every=1)


def some_positions(fewest=0, most=24):
    going = [undecided(seed, fewest, most) for seed in range(200)]
    return (np.array([getattr(one, name) for one in going]) for name in ("own", "stones"))


def test_a_policy_plays_only_where_there_is_room_and_mirrored_boards_alike():
    torch.manual_seed(0)
    policy = Policy()
    own, stones = some_positions()
    straight, values = policy.evaluate(own, stones)
    assert (
        np.isfinite(straight).tolist()
        == columns_of(np.array([playable(int(one)) for one in stones])).tolist()
    )
    assert np.allclose(np.exp(straight).sum(1), 1, atol=1e-5)
    turned = (np.array([mirror(int(each)) for each in these]) for these in (own, stones))
    log_p, mirrored_values = policy.evaluate(*turned)
    assert np.array_equal(log_p[:, ::-1], straight) and np.array_equal(mirrored_values, values)


def test_an_imitator_learns_the_moves_of_its_teacher(tmp_path):
    record = record_games(Human(), 200, np.random.default_rng(0))
    torch.manual_seed(0)
    untrained = accuracy(Policy(), record.moves)
    policy = imitate(record, 8, 0, tmp_path, MACHINE, Progress())
    learned = accuracy(policy, record.moves)
    assert learned["accuracy"] > untrained["accuracy"] + 0.1
    assert learned["cross_entropy"] < untrained["cross_entropy"] - 0.3
    again = load_policy(tmp_path / "policy.safetensors")
    assert all(
        torch.equal(one, other) for one, other in zip(policy.parameters(), again.parameters(), strict=True)
    )


def test_self_play_that_was_stopped_continues_to_the_same_weights(tmp_path):
    def train(out, evaluate=None):
        torch.manual_seed(0)
        policy = Policy()
        reinforce(policy, Random(), Human(2), SHORT, 7, tmp_path / out, MACHINE, Progress(), evaluate)
        return policy

    def interrupt(done, policy):
        if done == 4:  # before its checkpoint is written: the last one is that of step 2
            raise KeyboardInterrupt
        return {}

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("cut", interrupt)
    continued = train("cut")
    assert all(
        torch.equal(one, other) for one, other in zip(whole.parameters(), continued.parameters(), strict=True)
    )
    assert [games for games, _ in snapshots(tmp_path / "cut" / "pool")] == [64, 128, 192]
    rows = list(read_jsonl(tmp_path / "cut" / "log.jsonl", dict))
    assert sum("score_human" in row for row in rows) == 3
    assert {"entropy", "clipped", "value_error"} <= rows[0].keys()


def test_returns_mix_what_happened_with_values_and_end_at_random_moves():
    game, seat = np.zeros(5, np.int64), np.array([0, 1, 0, 1, 0])
    values, results = np.array([0.1, 0.2, 0.3, 0.4, 0.5], np.float32), np.array([1])
    plain = _returns(game, seat, np.zeros(5, bool), values, results, 1.0)
    assert plain.tolist() == [1, -1, 1, -1, 1]
    mixed = _returns(game, seat, np.zeros(5, bool), values, results, 0.5)
    assert np.allclose(mixed, [0.25 * 1.5 + 0.15, -0.5 + 0.2, 0.75, -1, 1])
    explored = np.array([False, False, True, False, False])
    assert np.allclose(_returns(game, seat, explored, values, results, 0.5)[0], 0.3)


def test_a_league_is_trained_once_and_read_again(tmp_path):
    rules = Rules(blind="edges", depth=1, epochs={50: 1.0, 100: 1.0}, self_play=SHORT)
    league = train_league(tmp_path, rules, MACHINE, Progress(), other=True)
    files = sorted(tmp_path.glob("*/policy.safetensors"))
    assert [path.parent.name for path in files] == [
        "imitation-100",
        "imitation-50",
        "imitation-other",
        "self-play",
    ]
    written = [path.stat().st_mtime_ns for path in files]
    train_league(tmp_path, rules, MACHINE, Progress(), other=True)
    assert [path.stat().st_mtime_ns for path in files] == written
    again = load_league(tmp_path)
    assert again.rules == rules and [games for games, _ in again.snapshots()] == [64, 128, 192]
    assert 0 <= match(again.learner(), league.imitator(), 20, np.random.default_rng(0)) <= 1
    with pytest.raises(BadInput, match="other rules"):
        train_league(tmp_path, Rules(blind="edges", depth=2), MACHINE, Progress())


def test_what_is_no_policy_is_refused_in_one_line(tmp_path):
    with pytest.raises(MissingInput, match="crawltalk lab"):
        load_policy(tmp_path / "policy.safetensors")
    with pytest.raises(MissingInput, match="crawltalk lab"):
        load_league(tmp_path)
    (tmp_path / "policy.safetensors").write_bytes(b"no weights")
    with pytest.raises(BadInput, match="no policy"):
        load_policy(tmp_path / "policy.safetensors")
    (tmp_path / "league.json").write_text('{"blind": "left", "depth": 4, "seed": 0}')
    with pytest.raises(BadInput, match="blind spot"):
        load_league(tmp_path)


def test_a_policy_has_no_move_that_it_would_not_play_itself(tmp_path):
    torch.manual_seed(1)
    policy = Policy()
    save_policy(policy, tmp_path / "policy.safetensors")
    where = positions(policy, policy, 200, np.random.default_rng(0))
    assert len(set(zip(where.own.tolist(), where.stones.tolist(), strict=True))) == len(where) == 200
    counts, findings = count_moves(policy, load_policy(tmp_path / "policy.safetensors"), where, Solver(1009))
    assert counts == {"0.001": Count(0, 0, 0, 0), "0.0001": Count(0, 0, 0, 0)} and findings == []


def test_moves_are_proved_or_wrong_as_the_solver_says():
    class Certain:
        """Plays one of the moves with an outcome, and no other."""

        def __init__(self, solver, choose):
            self.solver, self.choose = solver, choose

        def probabilities(self, own, stones):
            outcomes = self.solver.outcomes(own, stones).astype(float)
            outcomes[outcomes < -1] = np.nan
            return np.eye(6, dtype=np.float32)[self.choose(outcomes, 1)]

    solver, (own, stones) = Solver(100_003), some_positions(16, 24)
    nothing = np.zeros(len(own), np.int64)
    where = Moves(nothing, own, stones, nothing, nothing, nothing.astype(bool))
    best, worst = Certain(solver, np.nanargmax), Certain(solver, np.nanargmin)
    outcomes = solver.outcomes(own, stones)
    stake = (outcomes == outcomes.max(1, keepdims=True)).sum(1) < (outcomes >= -1).sum(1)
    few = stake & (outcomes.max(1) == 1) & ((outcomes == 1).sum(1) <= 2)
    counts, findings = count_moves(best, worst, where, solver)
    assert counts["0.001"].proved == len(findings) == few.sum() > 10
    assert (counts["0.001"].at_stake, counts["0.001"].wrong) == (stake.sum(), 0)
    assert all(outcomes[own.tolist().index(one.own)].max() == 1 for one in findings)
    counts, findings = count_moves(worst, best, where, solver)
    assert (counts["0.0001"].wrong, findings) == (stake.sum(), [])
    assert as_figures(counts)["0.0001"]["wrong_share_at_stake"] == 1.0
