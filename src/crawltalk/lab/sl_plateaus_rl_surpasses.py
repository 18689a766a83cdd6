"""Imitation ends below the expert, reinforcement learning goes beyond: AlphaGo on a small board."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

import numpy as np

from crawltalk.core import charts
from crawltalk.core.jsonl import read_jsonl
from crawltalk.games.elo import MatchResult, ratings
from crawltalk.games.imitation import accuracy
from crawltalk.games.league import EPOCHS, HELD_OUT, League, Rules, train_league
from crawltalk.games.play import match
from crawltalk.games.players import BLIND_SPOTS, Greedy, Human, Perfect, Player, Random
from crawltalk.games.policy import Policy, load_policy
from crawltalk.games.search import Searching
from crawltalk.games.selfplay import SelfPlay
from crawltalk.games.solver import Solver
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial

LARGEST = max(EPOCHS)
GAMES, SEARCHED = 1000, 200
"""In a match, and in one of a player that searches."""
SELF_PLAY = SelfPlay()
OVER_IMITATOR, OVER_TEACHER = 0.80, 0.70
"""The shares of points that count as surpassing."""
LEAGUES = "connect_four"
"""Where the policies stand among the results of the experiments."""


def league_of(trial: Trial, blind: str) -> League:
    """The policies of a seed, which several experiments share: connect_four/seed-N/BLIND beside their folders."""
    folder = trial.out.parents[1] / LEAGUES / f"seed-{trial.seed}" / blind
    whole = blind == "edges"
    rules = Rules(blind=blind, seed=trial.seed, epochs=dict(EPOCHS) if whole else {LARGEST: EPOCHS[LARGEST]})
    return train_league(folder, rules, trial.machine, trial.progress, other=whole)


def run(trial: Trial) -> Figures:
    """Train a seed's policies, and let them play each other, their teacher, and players that none has met."""
    league = league_of(trial, "edges")
    rng, human = np.random.default_rng([trial.seed, 37]), league.human
    held_out = league.record(2000, HELD_OUT).moves
    imitation = [
        {
            "games": games,
            **accuracy(league.imitator(games), held_out),
            "vs_human": match(league.imitator(games), human, GAMES, rng),
            "greedy_vs_human": match(Greedy(league.imitator(games)), human, GAMES, rng),
        }
        for games in EPOCHS
    ]
    learner, imitator = league.learner(), league.imitator()
    outside: dict[str, Player] = {
        "imitator of other games": league.imitator("other"),
        "blind to high cells": Human(4, BLIND_SPOTS["high"]),
        "sees all": Human(4, 0),
        "sees all, 6 moves ahead": Human(6, 0),
        "perfect": Perfect(Solver()),
        "random": Random(),
    }
    games = {name: 200 if name == "perfect" else GAMES for name in outside}
    return {
        "best_accuracy": float(human.probabilities(held_out.own, held_out.stones).max(1).mean()),
        "imitation": imitation,
        "vs_imitator": match(learner, imitator, GAMES, rng),
        "vs_human": match(learner, human, GAMES, rng),
        "greedy_vs_greedy_imitator": match(Greedy(learner), Greedy(imitator), GAMES, rng),
        "greedy_vs_human": match(Greedy(learner), human, GAMES, rng),
        "outside": {
            name: {
                "learner": match(learner, player, games[name], rng),
                "imitator": match(imitator, player, games[name], rng),
            }
            for name, player in outside.items()
        },
        "evaluations": [
            {name: row[name] for name in ("games", "vs_human", "vs_imitator")}
            for row in read_jsonl(league.folder / "self-play" / "log.jsonl", dict[str, Any])
            if "vs_human" in row
        ],
        **_elo(league, rng),
        "search": _search(learner, rng),
    }


def _search(learner: Policy, rng: np.random.Generator) -> Figures:
    """Points of a search on top of the policy, and of the policy's likeliest moves, against the same players."""
    likeliest, players = (
        Greedy(learner),
        {"sees all, 6 moves ahead": Human(6, 0), "perfect": Perfect(Solver())},
    )
    searching = Greedy(Searching(learner))
    return {
        "vs_likeliest": match(searching, likeliest, SEARCHED, rng),
        **{
            name: {
                who: match(one, player, SEARCHED, rng)
                for who, one in (("search", searching), ("alone", likeliest))
            }
            for name, player in players.items()
        },
    }


def _elo(league: League, rng: np.random.Generator) -> Figures:
    """Elo of the policy over its training, of the human and of the imitators; the largest of these has 0."""
    players: dict[str, Player] = {f"imitation {games}": league.imitator(games) for games in EPOCHS}
    largest = f"imitation {LARGEST}"
    players["human"] = league.human
    pairs = [(name, largest) for name in players if name != largest]
    pairs += [(name, "human") for name in players if name not in ("human", largest)]
    before = largest
    for games, path in league.snapshots():
        name = str(games)
        players[name] = load_policy(path)
        pairs += [(name, other) for other in dict.fromkeys((largest, "human", before))]
        before = name
    elo = ratings(
        [MatchResult(one, two, GAMES, match(players[one], players[two], GAMES, rng)) for one, two in pairs],
        largest,
    )
    curve = [{"games": games, "elo": elo[str(games)]} for games, _ in league.snapshots()]
    return {"elo": {name: elo[name] for name in players if not name.isdecimal()}, "elo_of_self_play": curve}


def beyond(one: Figures) -> tuple[float, float]:
    """(how many times the games of self-play that it took to surpass imitator and teacher it went on for, 0 if it never
    did; by how much Elo fell after that at most, from its highest until then).
    """
    surpassed = [row["games"] for row in one["evaluations"] if _surpasses(row)]
    if not surpassed:
        return 0.0, 0.0
    after = [row["elo"] for row in one["elo_of_self_play"] if row["games"] >= surpassed[0]]
    falls = [max(after[: index + 1]) - elo for index, elo in enumerate(after)]
    return one["elo_of_self_play"][-1]["games"] / surpassed[0], max(falls)


def _surpasses(scores: Figures) -> bool:
    return scores["vs_imitator"] >= OVER_IMITATOR and scores["vs_human"] >= OVER_TEACHER


def judge(figures: Sequence[Figures]) -> Judgement:
    """By the thresholds of the prediction, in every seed."""
    surpasses = [_surpasses(one) for one in figures]
    plateaus = [one["imitation"][-1]["vs_human"] < 0.5 for one in figures]
    holds = [times >= 5 and fall <= 100 for times, fall in map(beyond, figures)]
    all_true = [all(each) for each in zip(surpasses, plateaus, holds, strict=True)]
    effect = {
        "learner against imitator": mean(one["vs_imitator"] for one in figures),
        "learner against human": mean(one["vs_human"] for one in figures),
        "imitator against human": mean(one["imitation"][-1]["vs_human"] for one in figures),
        **{
            f"{who} against one never met: {name}": mean(one["outside"][name][who] for one in figures)
            for name in ("sees all, 6 moves ahead", "perfect")
            for who in ("learner", "imitator")
        },
        "times the games to surpass": mean(beyond(one)[0] for one in figures),
        "deepest fall in Elo": max(beyond(one)[1] for one in figures),
        "search on top against the learner's likeliest moves": mean(
            one["search"]["vs_likeliest"] for one in figures
        ),
        "Elo of the learner": mean(one["elo_of_self_play"][-1]["elo"] for one in figures),
        "Elo of the human": mean(one["elo"]["human"] for one in figures),
    }
    passed = all(all_true)
    return Judgement(
        verdict="confirmed" if passed else "partly" if all(surpasses) else "not at this scale",
        effect={name: round(value, 3) for name, value in effect.items()},
        summary=(
            f"Imitation of {LARGEST:,} games takes {effect['imitator against human']:.2f} of the points from its "
            f"teacher; after self-play the policy takes {effect['learner against human']:.2f} from the teacher and "
            f"{effect['learner against imitator']:.2f} from the imitator. All thresholds held in {sum(all_true)} of "
            f"{len(figures)} seeds."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """Elo over self-play beside the teacher's and the imitators', and imitation against the number of games."""
    chart, (left, right) = charts.panels(
        [("games of self-play, thousands", "Elo"), ("games imitated", "points against the teacher")]
    )
    for index, one in enumerate(figures):
        curve = one["elo_of_self_play"]
        left.plot(
            [0, *(row["games"] / 1000 for row in curve)],
            [0, *(row["elo"] for row in curve)],
            color="C0",
            label=None if index else "self-play",
        )
        left.axhline(one["elo"]["human"], color="C1", linestyle="--", label=None if index else "teacher")
        rows = one["imitation"]
        for key, color, label in (
            ("vs_human", "C2", "imitator"),
            ("greedy_vs_human", "C3", "its likeliest move"),
        ):
            right.plot(
                [row["games"] for row in rows],
                [row[key] for row in rows],
                "o-",
                color=color,
                label=None if index else label,
            )
    left.axhline(0, color="C2", linestyle="--", label="imitation of all games")
    right.axhline(mean(one["vs_human"] for one in figures), color="C0", label="after self-play")
    right.axhline(0.5, color="C1", linestyle="--", label="teacher")
    right.set_xscale("log")
    right.set_ylim(0, 1)
    return charts.svg(chart)


EXPERIMENT = Experiment(
    name="sl_plateaus_rl_surpasses",
    claim="Imitation ends below its teacher however many games it sees; self-play goes beyond the teacher.",
    source="Silver et al. 2016 (AlphaGo): the RL policy network won 80 % of games against the SL policy network",
    prediction=(
        "In every seed: the policy after self-play takes at least 0.80 of the points from the imitator that it began "
        "as, and 0.70 from the teacher; the imitator of 100,000 games takes less than 0.50 from the teacher; self-play "
        "goes on for five times the games that it takes to get there, and Elo never falls by more than 100 meanwhile."
    ),
    method=(
        "Connect four, 6x5, from openings of 0 to 6 random moves. The teacher searches 4 moves ahead; quiet moves in "
        "the edge columns do not exist for it. Imitators of 1,000 to 100,000 of its games (55,000 weights, mirror "
        f"images merged); then {SELF_PLAY.rounds * SELF_PLAY.games:,} games: against itself 0.4, older selves 0.2, "
        "the imitator 0.2, the teacher 0.2. Opponents that were never in training stand beside. Moves are drawn from "
        "the policies' probabilities. A search on top (64 simulations a move) plays its best move, and is compared "
        "with the policy's likeliest one."
    ),
    run=run,
    judge=judge,
    figure=figure,
    shared=LEAGUES,
)
