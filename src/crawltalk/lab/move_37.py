"""Move 37: winning moves that imitation all but never plays, found by self-play and proved by a solver."""

from collections.abc import Sequence
from statistics import mean

import numpy as np

from crawltalk.core import charts
from crawltalk.games.move37 import CONFIDENT, FEW, RARE, as_figures, count_moves, positions
from crawltalk.games.play import match
from crawltalk.games.players import BLIND_SPOTS, best_moves
from crawltalk.games.solver import Solver
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial
from crawltalk.lab.sl_plateaus_rl_surpasses import LEAGUES, league_of

POSITIONS = 50_000
JUDGED = 1000
"""Positions in which all moves are judged by the solver."""
LIMITS = [f"{limit:g}" for limit in RARE]
WANTED = {"0.001": 300, "0.0001": 150}
"""Proved moves in a seed, at each limit."""


def run(trial: Trial) -> Figures:
    """Count the moves for teachers with each blind spot and with none, and with another imitator in the learner's
    place.
    """
    figures = {blind: _count(trial, blind) for blind in BLIND_SPOTS}
    league = league_of(trial, "edges")
    imitator, other = league.imitator(), league.imitator("other")
    where = positions(other, imitator, POSITIONS, np.random.default_rng([trial.seed, 38]))
    return figures | {"another_imitator": as_figures(count_moves(other, imitator, where, Solver())[0])}


def _count(trial: Trial, blind: str) -> Figures:
    league = league_of(trial, blind)
    learner, imitator, solver = league.learner(), league.imitator(), Solver()
    rng = np.random.default_rng([trial.seed, 37])
    where = positions(learner, imitator, POSITIONS, rng)
    counts, findings = count_moves(learner, imitator, where, solver)
    judged = where[rng.permutation(len(where))[:JUDGED]]
    outcomes = solver.outcomes(judged.own, judged.stones)
    best = best_moves(outcomes)
    choice = (outcomes == outcomes.max(1, keepdims=True)).sum(1) < (outcomes >= -1).sum(1)
    optimal = {
        name: float((player.probabilities(judged.own, judged.stones) * best).sum(1)[choice].mean())
        for name, player in (("learner", learner), ("imitator", imitator), ("human", league.human))
    }
    return {
        "vs_imitator": match(learner, imitator, 2000, rng),
        "vs_human": match(learner, league.human, 2000, rng),
        "moves": as_figures(counts),
        "optimal": optimal,
        "rarest": [
            {
                "own": one.own,
                "stones": one.stones,
                "column": one.column,
                "learned": one.learned,
                "imitated": one.imitated,
            }
            for one in findings[:10]
        ],
    }


def judge(figures: Sequence[Figures]) -> Judgement:
    """By the thresholds of the prediction, in every seed."""
    enough = [
        all(one["edges"]["moves"][limit]["proved"] >= WANTED[limit] for limit in LIMITS) for one in figures
    ]
    exact = [all(one["edges"]["moves"][limit]["wrong_share"] <= 0.05 for limit in LIMITS) for one in figures]
    controls = [
        max(one["another_imitator"]["0.001"]["proved"], one["none"]["moves"]["0.001"]["proved"])
        for one in figures
    ]
    clean = [count == 0 for count in controls]
    passed = [all(each) for each in zip(enough, exact, clean, strict=True)]
    effect = {
        **{
            f"proved moves below {limit}": mean(one["edges"]["moves"][limit]["proved"] for one in figures)
            for limit in LIMITS
        },
        "wrong share": mean(one["edges"]["moves"]["0.001"]["wrong_share"] for one in figures),
        "wrong share at stake": mean(
            one["edges"]["moves"]["0.001"]["wrong_share_at_stake"] for one in figures
        ),
        "proved moves, teacher blind to high cells": mean(
            one["high"]["moves"]["0.001"]["proved"] for one in figures
        ),
        "proved moves, teacher without a blind spot": mean(
            one["none"]["moves"]["0.001"]["proved"] for one in figures
        ),
        "against the imitator, no blind spot": mean(one["none"]["vs_imitator"] for one in figures),
    }
    return Judgement(
        verdict="confirmed" if all(passed) else "partly" if all(enough) else "not at this scale",
        effect={name: round(value, 3) for name, value in effect.items()},
        summary=(
            f"Of {POSITIONS:,} positions {effect['proved moves below 0.001']:.0f} hold a move that wins, imitation "
            f"plays less than once in 1,000 times, self-play with more than {CONFIDENT:g}; "
            f"{effect['wrong share']:.1%} of such moves are wrong. With a teacher that sees all there "
            f"are {effect['proved moves, teacher without a blind spot']:.1f}, though self-play still beats the "
            "imitator: such moves measure the escape from the teacher's blind spot, not strength. All thresholds held "
            f"in {sum(passed)} of {len(figures)} seeds."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """Proved moves and wrong ones by the teacher's blind spot, a bar a seed."""
    chart, axes = charts.panels([(f"p of imitation below {limit}", "moves") for limit in LIMITS])
    for one, limit in zip(axes, LIMITS, strict=True):
        for seed, each in enumerate(figures):
            at = [index + (seed - (len(figures) - 1) / 2) * 0.25 for index in range(len(BLIND_SPOTS))]
            moves = [each[blind]["moves"][limit] for blind in BLIND_SPOTS]
            first = seed == 0
            one.bar(at, [row["proved"] for row in moves], 0.22, color="C0", label="proved" if first else None)
            wrong = [row["wrong"] for row in moves]
            one.bar(at, wrong, 0.08, color="C3", label="wrong" if first else None)
        one.set_xticks(range(len(BLIND_SPOTS)), [f"blind: {blind}" for blind in BLIND_SPOTS])
    return charts.svg(chart)


EXPERIMENT = Experiment(
    name="move_37",
    claim="Self-play finds winning moves that imitation all but never plays, where the teacher has a blind spot.",
    source="Silver et al. 2016 (AlphaGo), and its match with Lee Sedol: game 2, move 37",
    prediction=(
        "In every seed, of 50,000 positions: at least 300 proved moves with a probability below 0.001 in imitation, at "
        "least 150 below 0.0001; at most 5 % of the candidates are wrong; none with another imitator in the "
        "place of self-play, and none where the teacher has no blind spot."
    ),
    method=(
        f"A candidate is the favourite move of the policy after self-play, with a probability above {CONFIDENT:g}, "
        "where imitation gives it less than 0.001 (0.0001). It is proved if an exact solver says that it wins, at "
        f"most {FEW} moves of the position win, and imitation's favourite does not; wrong if it gives a result away. "
        "Positions, all different (mirror images are one), are from the policy's games against itself and the "
        "imitator. Teachers are blind to the edge columns, to the two highest rows, and to nothing. All are counted."
    ),
    run=run,
    judge=judge,
    figure=figure,
    shared=LEAGUES,
)
