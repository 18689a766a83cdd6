"""The experiments with jokes, in small: every part of them runs, and a verdict follows."""

import json

import pytest

from crawltalk.lab import joking, ranking, reward_hacking
from crawltalk.lab.conduct import conduct
from crawltalk.recipe import Machine

ONE = Machine(workers=1, device="cpu")
SMALL = {
    reward_hacking: {
        "DEMONSTRATIONS": 64,
        "COMPARISONS": 64,
        "POOL": 130,
        "TESTED": 40,
        "STEPS": 4,
        "EVERY": 2,
    }
    | {"ROUNDS": 1, "ADDED": 20, "PENALTIES": (0.0, 0.1)},
    ranking: {"DEMONSTRATIONS": 64, "LABELS": (32, 64), "POOL": 32, "TESTED": 40, "STEPS": 2, "EVERY": 1},
}


@pytest.fixture
def small(monkeypatch):
    for module, changes in SMALL.items():
        for name, value in changes.items():
            monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(joking, "CHECKED", 4)
    monkeypatch.setattr(joking, "SAMPLES", 4)


def test_a_reward_is_optimised_and_its_curve_stops_and_nonsense_are_measured(small, tmp_path):
    results = []
    assert conduct([reward_hacking.EXPERIMENT], tmp_path, ONE, 1, on_result=results.append) == {}
    (result,) = results
    figures = json.loads((tmp_path / "reward_hacking" / "seed-0.json").read_bytes())["figures"]
    assert [row["step"] for row in figures["looks"]["0"]] == [0, 2, 4]
    assert set(figures["stops"]) == {"fresh preferences", "second reward model", "budget"}
    assert (
        figures["best_of"][0]["kl"] == 0 and figures["best_of"][-1]["proxy"] > figures["best_of"][0]["proxy"]
    )
    assert figures["nonsense"]["climbed"]["score"] >= figures["nonsense"]["repeated"]["score"]
    assert len(figures["rounds"]) == 2 and figures["rounds"][0]["exploit"]
    assert (tmp_path / "reward_hacking" / "figure.svg").read_text().startswith("<svg")
    assert result.judgement.verdict in ("confirmed", "partly", "not at this scale")


def test_ranking_and_writing_are_compared_for_each_number_of_labels(small, tmp_path):
    results = []
    assert conduct([ranking.EXPERIMENT], tmp_path, ONE, 1, on_result=results.append) == {}
    (result,) = results
    figures = json.loads((tmp_path / "ranking_is_easier_than_writing" / "seed-0.json").read_bytes())[
        "figures"
    ]
    assert [row["labels"] for row in figures["rows"]] == [32, 64]
    assert all(0 <= row[way] <= 4.2 for row in figures["rows"] for way in ranking.WAYS)
    assert 0 <= figures["accuracy_of_likelihood"] <= 1
    assert (tmp_path / "ranking_is_easier_than_writing" / "figure.svg").read_text().startswith("<svg")
    assert result.judgement.summary
