"""What the seeds alone say of an effect, from the experiment to the page and the list."""

import json
from pathlib import Path

import msgspec
import pytest

from crawltalk.cli import main
from crawltalk.lab import EXPERIMENTS
from crawltalk.lab.conduct import Result
from crawltalk.lab.experiment import Judgement, means_of, ranges_of
from crawltalk.report.claims import claims_page, read_claims


def judge(figures) -> Judgement:
    clear = sum(row["share"] > 0.5 for row in figures)
    effect = means_of(figures, ["share"]) | {
        "seeds that are clear": clear,
        "least": min(r["share"] for r in figures),
    }
    return Judgement(verdict="confirmed", effect=effect, summary="It does.")


def test_an_effect_has_the_least_and_the_most_of_its_seeds_and_a_count_of_seeds_has_none():
    figures = [{"share": 0.6}, {"share": 0.9}, {"share": 0.75}]
    assert ranges_of(judge, figures) == {"share": (0.6, 0.9), "least": (0.6, 0.9)}


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """The results of one experiment, judged by a rule of our own."""
    figures = [{"share": 0.6}, {"share": 0.9}]
    result = Result(
        experiment=EXPERIMENTS[0].name,
        claim="A claim.",
        source="somebody",
        prediction="it holds",
        method="looking",
        seeds=[0, 1],
        judgement=judge(figures),
        cpu_seconds=[1.5, 2.5],
        ranges=ranges_of(judge, figures),
    )
    (tmp_path / EXPERIMENTS[0].name).mkdir()
    (tmp_path / EXPERIMENTS[0].name / "result.json").write_bytes(msgspec.json.encode(result))
    return tmp_path


def test_the_page_shows_them_beside_the_mean(lab: Path):
    assert "share: 0.75 (0.6 to 0.9 over 2 seeds)" in claims_page(read_claims(lab))


def test_the_list_as_json_has_name_verdict_effect_seeds_and_cpu_seconds(lab: Path, capsys):
    assert main(["lab", "--json", "--out", str(lab)]) == 0
    first, second, *_ = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["name"], first["verdict"], first["seeds"], first["cpu_seconds"]) == (
        EXPERIMENTS[0].name,
        "confirmed",
        2,
        4.0,
    )
    assert first["effect"]["share"] == pytest.approx(0.75) and first["ranges"]["share"] == [0.6, 0.9]
    assert second["verdict"] is None and second["effect"] is None
