"""The verdicts of the game experiments follow their predictions."""

from crawltalk.lab import move_37, sl_plateaus_rl_surpasses


def surpassing(**changes):
    outside = {
        "sees all, 6 moves ahead": {"learner": 0.4, "imitator": 0.2},
        "perfect": {"learner": 0.2, "imitator": 0.1},
    }
    imitation = [
        {"games": games, "vs_human": share, "greedy_vs_human": share + 0.1}
        for games, share in ((1_000, 0.2), (100_000, 0.4))
    ]
    figures = {
        "vs_imitator": 0.84,
        "vs_human": 0.76,
        "imitation": imitation,
        "outside": outside,
        "elo": {"human": 60.0},
        "search": {"vs_likeliest": 0.7},
        "elo_of_self_play": [{"games": games, "elo": games / 1000} for games in (20_000, 40_000, 200_000)],
        "evaluations": [
            {"games": 20_000, "vs_human": 0.72, "vs_imitator": 0.7},
            {"games": 40_000, "vs_human": 0.72, "vs_imitator": 0.81},
        ],
    }
    return figures | changes


def test_surpassing_is_confirmed_only_if_every_seed_passes_every_threshold():
    judge = sl_plateaus_rl_surpasses.judge
    assert judge([surpassing()] * 3).verdict == "confirmed"
    assert sl_plateaus_rl_surpasses.beyond(surpassing()) == (5.0, 0.0)
    short = [{"games": games, "elo": 200.0} for games in (20_000, 40_000, 160_000)]
    fallen = [{"games": 40_000, "elo": 300.0}, {"games": 200_000, "elo": 150.0}]
    for curve in (short, fallen):
        assert judge([surpassing(), surpassing(elo_of_self_play=curve)]).verdict == "partly"
    assert sl_plateaus_rl_surpasses.beyond(surpassing(evaluations=[])) == (0.0, 0.0)
    assert judge([surpassing(), surpassing(vs_human=0.65)]).verdict == "not at this scale"
    assert "1 of 2 seeds" in judge([surpassing(), surpassing(vs_imitator=0.7)]).summary
    assert sl_plateaus_rl_surpasses.figure([surpassing()] * 2).startswith("<svg")


def found(proved=400, wrong=0.02, control=0, other=0):
    def moves(count, share):
        row = {"proved": count, "wrong": 9, "wrong_share": share, "wrong_share_at_stake": 2 * share}
        return {"0.001": row, "0.0001": row}

    teachers = {
        blind: {"moves": moves(count, wrong), "vs_imitator": 0.8}
        for blind, count in (("edges", proved), ("high", proved), ("none", control))
    }
    return teachers | {"another_imitator": moves(other, 0.0)}


def test_move_37_is_confirmed_only_with_enough_moves_few_wrong_ones_and_clean_controls():
    assert move_37.judge([found()] * 3).verdict == "confirmed"
    assert move_37.judge([found(), found(wrong=0.06)]).verdict == "partly"
    assert move_37.judge([found(), found(control=1)]).verdict == "partly"
    assert move_37.judge([found(), found(other=1)]).verdict == "partly"
    assert move_37.judge([found(), found(proved=299)]).verdict == "not at this scale"
    assert move_37.figure([found()] * 3).startswith("<svg")
