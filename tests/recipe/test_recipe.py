"""Recipes: layers, strictness, derivation."""

import dataclasses
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.core.errors import BadRecipe, TooBig
from crawltalk.recipe import Model, Recipe, SftFile, cost
from crawltalk.recipe.differences import differences, flatten
from crawltalk.recipe.layers import load_recipe, preset_names
from crawltalk.recipe.renamed import RENAMED
from crawltalk.recipe.toml import to_toml
from crawltalk.run.machine import check_fit


def test_every_preset_loads_and_says_what_it_is():
    assert {"nano", "small", "gpt2", "gpt2-xl", "llama3-8b"} <= set(preset_names())
    for name in preset_names():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.about


def test_layers_win_in_order(tmp_path):
    low, high = tmp_path / "low.toml", tmp_path / "high.toml"
    low.write_text("seed = 1\n[pretrain]\neval_every = 7\n[pretrain.optim]\nmuon_lr = 0.5")
    high.write_text("[pretrain.optim]\nmuon_lr = 0.25\nclip = 2.0")
    recipe = load_recipe("small", [low, high], {"pretrain.optim.clip": "3"})
    assert (recipe.seed, recipe.pretrain.eval_every) == (1, 7)
    assert (recipe.pretrain.optim.muon_lr, recipe.pretrain.optim.clip) == (0.25, 3.0)


def test_a_preset_of_ones_own_extends_a_built_in_one(tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text('extends = "nano"\nseed = 5')
    assert load_recipe(mine).name == "mine"
    assert load_recipe(mine).tokens == load_recipe("nano").tokens


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"pretrain.muon_lr": "1"}, "did you mean 'pretrain.optim.muon_lr'"),
        ({"pretrian.tokens": "1"}, "unknown flag --pretrian.tokens; did you mean 'pretrain.tokens'"),
        ({"pretrain.tokens": "many"}, "pretrain.tokens: expected int | null, got str"),
        ({"pretrain.optim": "1"}, "is a section; set one of its values"),
        ({"data.languages": "[1]"}, "data.languages"),
        ({"stages": "1"}, "--stages is a section"),
        ({"sweep.pretrain.tokens": "1"}, "unknown flag --sweep.pretrain.tokens"),
        ({"sweep.depths": "1"}, "takes two models or more"),
    ],
)
def test_a_wrong_flag_is_named_with_the_way_out(flags, words):
    with pytest.raises(BadRecipe) as error:
        load_recipe("small", flags=flags)
    assert words in str(error.value)


def test_a_wrong_overlay_is_named_with_its_file(tmp_path):
    overlay = tmp_path / "mine.toml"
    overlay.write_text("[pretrain]\ntokns = 3")
    with pytest.raises(
        BadRecipe, match=r"mine.toml: unknown key 'pretrain.tokns'; did you mean 'pretrain.tokens'"
    ):
        load_recipe("small", [overlay])
    overlay.write_text("[pretrain")
    with pytest.raises(BadRecipe, match="is not TOML"):
        load_recipe("small", [overlay])
    with pytest.raises(BadRecipe, match="does not exist"):
        load_recipe("small", [tmp_path / "absent.toml"])


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(BadRecipe, match="did you mean 'small'"):
        load_recipe("smal")


def test_an_old_name_is_refused_and_the_error_says_the_new_one(tmp_path, monkeypatch):
    monkeypatch.setitem(RENAMED, "pretrain.rate", "pretrain.optim.muon_lr")
    monkeypatch.setitem(RENAMED, "sft.passes", "sft.epochs")
    monkeypatch.setitem(RENAMED, "training", "pretrain")
    overlay = tmp_path / "mine.toml"
    overlay.write_text("[pretrain]\nrate = 3")
    with pytest.raises(
        BadRecipe, match=r"mine.toml: unknown key 'pretrain.rate'; its name is now 'pretrain.optim.muon_lr'"
    ):
        load_recipe("small", [overlay])
    overlay.write_text("[training]\ntokens = 3")
    with pytest.raises(BadRecipe, match="'training'; its name is now 'pretrain'"):
        load_recipe(overlay)
    with pytest.raises(BadRecipe, match=r"--training.model.depth; its name is now 'pretrain.model.depth'"):
        load_recipe("small", flags={"training.model.depth": "3"})
    with pytest.raises(BadRecipe, match=r"its name is now 'stages.polish.config.epochs'"):
        load_recipe("small", flags=POLISH | {"stages.polish.config.passes": "3"})


POLISH = {"stages.polish.kind": "sft", "stages.polish.model": "sft", "stages.polish.config.epochs": "1"}


def test_a_further_stage_has_the_values_of_its_kind_but_for_its_own(tmp_path):
    overlay = tmp_path / "mine.toml"
    overlay.write_text(
        "[stages.polish.config.optim]\nadamw_lr = 0.5\n[stages.polish]\nkind='sft'\nmodel='sft'"
    )
    flags = {"sft.resume_from": "step-3", "sft.tasks.identity": "7", "stages.polish.config.epochs": "1"}
    recipe = load_recipe("nano", [overlay], flags)
    own = recipe.stages["polish"].config
    assert own == dataclasses.replace(
        recipe.sft, resume_from="", epochs=1.0, optim=dataclasses.replace(recipe.sft.optim, adamw_lr=0.5)
    )
    path = tmp_path / "nano.toml"
    path.write_text(to_toml(recipe))
    assert load_recipe(path) == recipe
    assert (
        load_recipe(path, flags={"stages.polish.config.tasks.spelling": "3"})
        .stages["polish"]
        .config.tasks["spelling"]
        == 3
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"stages.polish.config.epocs": "1"}, "did you mean 'stages.polish.config.epochs'"),
        ({"stages.polish.config.epochs": "many"}, "stages.polish.config.epochs: expected float, got str"),
        ({"stages.polsh.config.epochs": "1"}, "stages.polsh has no kind; did you mean 'polish'"),
        ({"stages.polish.kind": "stf"}, "stages.polish.kind: no stage is called 'stf'; did you mean 'sft'"),
        ({"stages.Polish.kind": "sft", "stages.Polish.model": "sft"}, "lower-case letters"),
        ({"stages.two.kind": "sft"}, "missing required field"),
        ({"stages.two.kind.epochs": "1"}, "stages.two.kind: no stage is called {'epochs': '1'}"),
    ],
)
def test_a_mistake_in_a_further_stage_is_named_with_the_way_out(flags, words):
    with pytest.raises(BadRecipe) as error:
        load_recipe("small", flags=POLISH | flags)
    assert words in str(error.value)


@pytest.mark.parametrize("config", ["3", "[1]", '"polish"'])
def test_the_config_of_a_further_stage_that_is_no_section_is_refused(config, tmp_path):
    overlay = tmp_path / "mine.toml"
    overlay.write_text(f'[stages.polish]\nkind = "sft"\nmodel = "sft"\nconfig = {config}')
    with pytest.raises(BadRecipe, match=r"stages\.polish\.config is a section: give it values"):
        load_recipe("nano", [overlay])


def test_a_sweep_follows_the_training_that_it_predicts():
    recipe = load_recipe("nano", flags={"sweep.depths": "2,1", "pretrain.tokens": "5"})
    assert recipe.sweep.depths == (1, 2)
    assert recipe.sweep.pretrain == recipe.pretrain
    assert "pretrain" not in to_toml(recipe).partition("[sweep]")[2].partition("[pretrain]")[0]


@given(
    seed=st.integers(0, 2**31),
    lr=st.floats(1e-6, 1.0),
    include=st.text(max_size=20),
    prompts=st.lists(st.text(max_size=9)),
)
def test_a_resolved_recipe_reads_back_as_itself(seed, lr, include, prompts):
    recipe = load_recipe("nano")
    pretrain = dataclasses.replace(
        recipe.pretrain, prompts=tuple(prompts), optim=dataclasses.replace(recipe.pretrain.optim, muon_lr=lr)
    )
    tokens = dataclasses.replace(recipe.tokens, include=include)
    recipe = dataclasses.replace(recipe, seed=seed, pretrain=pretrain, tokens=tokens)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{recipe.name}.toml"
        path.write_text(to_toml(recipe), encoding="utf-8")
        assert load_recipe(path) == recipe


def test_differences_name_field_and_values():
    old, new = flatten(Recipe()), flatten(dataclasses.replace(Recipe(), seed=3))
    assert differences(old, new) == ["seed: 0 -> 3"]


def test_the_parameter_counts_of_known_models_come_out():
    llama = load_recipe("llama3-8b")
    count = cost.parameters(llama.pretrain.model, llama.tokenizer.vocab_size)
    assert count == pytest.approx(8.03e9, rel=0.005)  # Llama 3 8B: 8,030,261,248
    xl = load_recipe("gpt2-xl")
    assert cost.parameters(xl.pretrain.model, xl.tokenizer.vocab_size) == pytest.approx(1.56e9, rel=0.05)
    base = load_recipe("gpt2")
    assert cost.parameters(base.pretrain.model, base.tokenizer.vocab_size) == pytest.approx(124e6, rel=0.05)


@pytest.mark.parametrize("name", ["gpt2", "gpt2-xl", "llama3-8b"])
def test_a_recipe_too_big_for_a_small_machine_is_refused_with_the_sum(name):
    recipe = load_recipe(name, flags={"machine.device": "cpu", "machine.workers": "2"})
    with pytest.raises(TooBig, match=r"million parameters: .* = .*(GiB to train|days)"):
        check_fit(recipe)
    check_fit(load_recipe(name, flags={"machine.device": "cpu", "machine.force": "true"}))


def test_the_small_presets_fit():
    for name in ("nano", "small"):
        check_fit(load_recipe(name, flags={"machine.device": "cpu", "machine.workers": "2"}))


def test_one_dial_derives_the_shape():
    assert load_recipe("nano", flags={"pretrain.model.depth": "6"}).pretrain.model == dataclasses.replace(
        Model(), depth=6, width=384, heads=6, kv_heads=6, mlp=1152, tie_embeddings=True
    )


@pytest.mark.parametrize("text", ["en,de", '["en", "de"]'])
def test_a_list_is_given_by_commas_or_as_toml(text):
    assert load_recipe("small", flags={"data.languages": text}).data.languages == ("en", "de")


def test_counts_of_tasks_are_laid_over_the_usual_ones_one_by_one(tmp_path):
    overlay = tmp_path / "mine.toml"
    overlay.write_text("[sft.tasks]\nreversal = 7\nspelling = 20")
    usual = load_recipe("small").sft.tasks
    tasks = load_recipe("small", [overlay], {"sft.tasks.arithmetic": "200"}).sft.tasks
    assert tasks == usual | {"reversal": 7, "spelling": 20, "arithmetic": 200}
    assert list(tasks)[: len(usual)] == list(usual)  # an order that no layer changes
    with pytest.raises(BadRecipe, match=r"sft\.tasks.*expected int, got str"):
        load_recipe("small", flags={"sft.tasks.arithmetic": "many"})


def test_files_of_conversations_have_names_of_ones_own_and_known_settings(tmp_path):
    overlay = tmp_path / "mine.toml"
    overlay.write_text("[sft.data.mine]\npath = 'a.jsonl'\nepochs = 2")
    recipe = load_recipe(
        "nano", [overlay], {"sft.data.theirs.path": "b.jsonl", "sft.data.mine.weight": "0.5"}
    )
    assert recipe.sft.data == {
        "mine": SftFile(path="a.jsonl", epochs=2, weight=0.5),
        "theirs": SftFile(path="b.jsonl"),
    }
    (tmp_path / "written.toml").write_text(to_toml(recipe))
    assert load_recipe(tmp_path / "written.toml") == recipe
    again = {
        "stages.again.kind": "sft",
        "stages.again.model": "sft",
        "stages.again.config.data.mine.path": "c",
    }
    assert load_recipe("nano", [overlay], again).stages["again"].config.data["mine"].path == "c"
    for flag, words in (("sft.data.mine.epoch", "unknown flag"), ("sft.data.mine", "is a section")):
        with pytest.raises(BadRecipe, match=words):
            load_recipe("nano", [overlay], {flag: "1"})
    overlay.write_text("[sft.data.mine]\nfile = 'a.jsonl'")
    with pytest.raises(BadRecipe, match=r"unknown key 'sft\.data\.mine\.file'"):
        load_recipe("nano", [overlay])
    overlay.write_text("[sft.data.mine]\nepochs = 2.0")
    with pytest.raises(BadRecipe, match=r"sft\.data.*path"):
        load_recipe("nano", [overlay])


def test_the_recipe_of_the_chapter_on_fine_tuning_is_one(tmp_path):
    chapter = Path(__file__).parents[2] / "docs" / "chapters" / "05-supervised-fine-tuning.md"
    block = chapter.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    (tmp_path / "mine.toml").write_text(block)
    recipe = load_recipe(tmp_path / "mine.toml")
    assert [(file.path, file.weight) for file in recipe.sft.data.values()] == [
        ("mine.jsonl", None),
        ("oasst.jsonl.gz", 0.3),
    ]
