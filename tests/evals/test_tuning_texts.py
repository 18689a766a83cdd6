"""What an assistant was trained on after its pretraining, as its stages wrote it down."""

from pathlib import Path

from crawltalk.chat.messages import Conversation, Message, Preference, TextPart
from crawltalk.core.jsonl import write_jsonl
from crawltalk.core.types import Problem
from crawltalk.evals.tuning_texts import texts_in, tuning_files
from crawltalk.models import lineage
from crawltalk.posttraining.reinforce import Group
from crawltalk.recipe.layers import load_recipe
from crawltalk.run.folder import RunFolder

ASKED = Message("user", "Why is it so?")


def test_texts_are_those_of_conversations_preferences_and_reinforced_prompts(tmp_path: Path):
    said = Message("assistant", [TextPart("It "), TextPart("is.")])
    write_jsonl(tmp_path / "conversations.jsonl", [Conversation(messages=[ASKED, said], source="x")])
    pair = Preference(messages=[ASKED], chosen=[Message("assistant", "a")], rejected=[said], source="x")
    write_jsonl(tmp_path / "preferences.jsonl", [pair])
    problem = Problem(prompt="3 + 4?", answer="7", task="sums")
    group = Group(step=1, problem=problem, replies=["7"], lengths=[1], verdicts=[])
    write_jsonl(tmp_path / "rollouts.jsonl", [group, group])
    assert list(texts_in(tmp_path / "conversations.jsonl")) == [["Why is it so?", "It ", "is."]]
    assert list(texts_in(tmp_path / "preferences.jsonl")) == [["Why is it so?", "a", "It ", "is."]]
    assert list(texts_in(tmp_path / "rollouts.jsonl")) == [["3 + 4?"], ["3 + 4?"]]


def test_a_model_has_the_files_of_the_stages_that_it_was_trained_from_and_of_no_others(tmp_path: Path):
    (tmp_path / "r.toml").write_text(
        'extends = "nano"\n[dpo]\ndata = ["pairs.jsonl"]\n'
        '[stages.aside]\nkind = "sft"\nmodel = "sft"\n[stages.polish]\nkind = "sft"\nmodel = "dpo"\n'
    )
    run = RunFolder(tmp_path / "run")
    run.write_recipe(load_recipe(str(tmp_path / "r.toml")))
    for name in ("sft", "aside", "dpo", "polish"):
        (run.path / name).mkdir()
        file = "preferences.jsonl" if name == "dpo" else "conversations.jsonl"
        (run.path / name / file).touch()
    assert [stage.name for stage in lineage(run, "aside")] == ["pretrain", "sft", "aside"]
    assert list(tuning_files(run, "aside")) == ["sft/conversations.jsonl", "aside/conversations.jsonl"]
    assert list(tuning_files(run, "polish")) == [
        "sft/conversations.jsonl",
        "aside/conversations.jsonl",  # the preferences were learned by the last assistant before them
        "dpo/preferences.jsonl",
        "polish/conversations.jsonl",
    ]
    assert tuning_files(run, "pretrain") == {}
