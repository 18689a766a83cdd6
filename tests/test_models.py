"""What a person calls a model, and which models a run has."""

from pathlib import Path

import pytest

from crawltalk.core.errors import MissingInput
from crawltalk.models import model_folder, model_of_run, models_of_run, place_of
from crawltalk.recipe.layers import load_recipe
from crawltalk.run.folder import RunFolder


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunFolder:
    """A run of two fine-tunings that has no model yet."""
    monkeypatch.chdir(tmp_path)
    folder = RunFolder("runs/mine")
    flags = {"stages.polish.kind": "sft", "stages.polish.model": "sft"}
    folder.write_recipe(load_recipe("nano", flags=flags))
    return folder


def make(run: RunFolder, *stages: str) -> None:
    for stage in stages:
        (run.path / stage).mkdir()
        (run.path / stage / "config.json").write_text("{}")


def test_a_run_is_its_assistant_or_its_base_model_while_there_is_none(run):
    with pytest.raises(MissingInput, match=r"has no assistant yet; make it with: crawltalk run runs/mine"):
        model_folder("runs/mine")
    make(run, "pretrain")
    assert model_folder("mine") == model_folder(run.path) == run.path / "pretrain"
    make(run, "sft")
    assert model_folder("mine") == run.path / "sft"
    make(run, "polish")
    assert model_folder("mine") == run.path / "polish"
    assert model_folder("mine", ("base",)) == model_of_run(run, "base") == run.path / "pretrain"
    assert model_folder("runs/mine/sft") == run.path / "sft"


def test_a_model_of_a_run_has_a_place_there_also_where_its_stage_is_borrowed(run, tmp_path):
    make(run, "pretrain", "sft")
    for name, stage in (("mine", "sft"), ("runs/mine", "sft"), ("runs/mine/pretrain", "pretrain")):
        place = place_of(name)
        assert place is not None and (str(place[0].path), place[1]) == ("runs/mine", stage)
    other = RunFolder("runs/other")
    other.write_recipe(run.recipe())
    (other.path / "borrowed.json").write_text(f'{{"pretrain": "{run.path.resolve()}"}}')
    place = place_of("runs/other/pretrain")
    assert place is not None and place[0].path == other.path
    assert model_folder("runs/other/pretrain") == run.path.resolve() / "pretrain"
    assert place_of(tmp_path) is None and place_of("smollm2") is None


def test_a_folder_of_a_model_here_hides_a_run_of_its_name_also_for_what_is_measured(run, tmp_path):
    make(run, "pretrain", "sft")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").touch()
    assert model_folder("mine") == Path("mine")
    assert place_of("mine") is None
    place = place_of("runs/mine")
    assert place is not None and place[1] == "sft"


def test_a_model_of_a_run_whose_recipe_cannot_be_read_works_by_its_folder(run):
    make(run, "pretrain")
    (run.path / "recipe.toml").write_text("nonsense = 1\n")
    assert model_folder("runs/mine/pretrain") == run.path / "pretrain"
    assert place_of("runs/mine/pretrain") is None


def test_the_models_of_a_run_are_those_of_its_recipe_in_order(run):
    make(run, "polish", "pretrain", "sft", "left-over")
    assert [stage.name for stage, _ in models_of_run(run)] == ["pretrain", "sft", "polish"]
    with pytest.raises(MissingInput, match="has no reward model yet"):
        model_of_run(run, "reward")


def test_an_imported_model_has_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingInput, match="crawltalk import smollm2"):
        model_folder("smollm2")
    (tmp_path / "models" / "smollm2").mkdir(parents=True)
    (tmp_path / "models" / "smollm2" / "config.json").write_text("{}")
    assert str(model_folder("smollm2")) == "models/smollm2"
