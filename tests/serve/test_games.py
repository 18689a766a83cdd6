"""The JSON of the page's games, and the page itself over a league of policies that know nothing."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import expect
from starlette.testclient import TestClient

from crawltalk.games.board import CELLS
from crawltalk.games.league import EPOCHS
from crawltalk.games.policy import Policy, save_policy
from crawltalk.serve import Settings, make_app
from crawltalk.serve.ui.routes import routes
from support.games import position_after, undecided
from support.serving import serving

ALONE = position_after([0, 1, 0, 1, 0, 1])
"""Whoever moves wins in the first column."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    league = folder / "connect_four" / "seed-0" / "edges"
    for number, name in enumerate((f"imitation-{max(EPOCHS)}", "self-play")):
        torch.manual_seed(number)
        save_policy(Policy(), league / name / "policy.safetensors")
    (league / "league.json").write_text('{"blind": "edges", "depth": 1, "seed": 0}')
    rarest = {"own": ALONE.own, "stones": ALONE.stones, "column": 0, "learned": 0.995, "imitated": 1e-5}
    (folder / "move_37").mkdir()
    figures = {"figures": {"edges": {"rarest": [rarest]}}}
    (folder / "move_37" / "seed-0.json").write_text(json.dumps(figures))
    return folder


@pytest.fixture(scope="module")
def client(lab):
    return TestClient(make_app({}, Settings(), routes(None, {}, None, Settings(), lab=lab)))


def ask(client, own, stones, league="seed-0/edges"):
    return client.get("/api/games/position", params={"league": league, "own": own, "stones": stones})


def test_the_page_lists_what_the_lab_has_trained(client, tmp_path):
    (league,) = client.get("/api/games").json()["leagues"]
    assert (league["name"], league["blind"], league["depth"]) == ("seed-0/edges", "edges", 1)
    assert league["found"] == [{"own": ALONE.own, "stones": ALONE.stones, "imitated": 1e-5, "learned": 0.995}]
    none = TestClient(make_app({}, Settings(), routes(None, {}, None, Settings(), lab=tmp_path)))
    assert none.get("/api/games").json() == {"leagues": []}


def test_a_position_has_the_solvers_verdict_and_everybodys_probabilities(client):
    answer = ask(client, ALONE.own, ALONE.stones).json()
    assert answer["columns"] == [[0, 0, 0], [1, 1, 1], [], [], [], []] and answer["to_move"] == 0
    first, *others = answer["moves"]
    assert first["verdict"] == {"result": "wins", "moves": 1} and first["keeps"] and first["human"] == 1
    assert others[0]["column"] == 1 and not any(one["human"] for one in others)
    for who in ("human", "imitator", "learner"):
        assert sum(one[who] for one in answer["moves"]) == pytest.approx(1, abs=1e-5)
    over = ask(client, **first["after"]).json()
    assert (over["over"], over["won"], over["to_move"], over["moves"]) == (True, True, 1, [])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_verdicts_are_right_about_who_wins_and_when(client, seed):
    position = undecided(seed, 18, 29)
    answer = ask(client, position.own, position.stones).json()
    assert [one["column"] for one in answer["moves"]] == position.legal()
    for move in answer["moves"]:  # the best play of both, by the verdicts, ends as the first one says
        verdict, mover, after, moves = (
            move["verdict"],
            answer["to_move"],
            ask(client, **move["after"]).json(),
            1,
        )
        while not after["over"]:
            best = max(after["moves"], key=lambda one: _worth(one["verdict"]))
            moves += after["to_move"] == (mover if verdict["result"] == "wins" else 1 - mover)
            after = ask(client, **best["after"]).json()
        moves -= verdict["result"] == "loses"
        winner = {"wins": mover, "loses": 1 - mover}.get(verdict["result"])
        assert after["won"] == (winner is not None) and (winner is None or after["to_move"] == 1 - winner)
        assert verdict["moves"] in (None, moves)


def _worth(verdict):
    moves = verdict["moves"] or 0
    return {"wins": 2 * CELLS - moves, "draws": 0, "loses": moves - 2 * CELLS}[verdict["result"]]


def test_what_is_no_position_and_no_league_is_refused_in_one_line(client):
    for own, stones in ((1, 0), (2, 2), (0, 3), (3, 3), (0, 1 << 5)):
        response = ask(client, own, stones)
        assert (
            response.status_code == 400
            and "no position of connect four" in response.json()["error"]["message"]
        )
    for own, stones in ((0, 1 << 36), (-1, 0), ("x", 0)):
        assert ask(client, own, stones).status_code in (400, 422)
    for league in ("../../etc", "seed-0", "", "seed-0/edges/../edges"):
        response = ask(client, 0, 0, league)
        assert response.status_code == 404 and "crawltalk lab" in response.json()["error"]["message"]


@pytest.mark.slow
def test_a_person_plays_a_game_and_looks_at_a_proved_move(chromium, lab):
    with serving(routes=routes(None, {}, None, Settings(), lab=lab)) as server:
        tab = chromium.new_page()
        tab.set_default_timeout(20_000)
        complaints = []
        tab.on(
            "console", lambda message: complaints.append(message.text) if message.type == "error" else None
        )
        tab.goto(f"{server.url}/#/games")
        expect(tab.get_by_role("status")).to_have_text("You are to move.")
        tab.get_by_label("Column 3: empty").click()
        expect(tab.locator(".board .second")).to_have_count(1)
        expect(tab.get_by_role("status")).to_have_text("You are to move.")
        expect(tab.locator(".opinions tbody tr")).to_have_count(6)
        tab.get_by_role("button", name="Take back").click()
        expect(tab.locator(".board .first, .board .second")).to_have_count(0)
        tab.get_by_role("button", name="Position 1").click()
        expect(tab.locator(".opinions .keeps").first).to_have_text("wins in 1 move")
        tab.get_by_label("Column 1: from below first, first, first").click()
        expect(tab.get_by_role("status")).to_have_text("The first player has won.")
        assert complaints == []
        tab.close()
