"""crawltalk labels: from prompts to training data."""

import json
import sqlite3
from contextlib import closing

import pytest

from crawltalk.chat.messages import Conversation, Preference
from crawltalk.cli import main
from crawltalk.core.jsonl import read_jsonl
from crawltalk.labels import Edit, LabelStore, Ranking


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    row = {"prompt": "What is gold?", "replies": ["A metal.", "A fish."], "model": "big"}
    (tmp_path / "prompts.jsonl").write_text(json.dumps(row) + "\n{\n")
    return tmp_path / "mine"


def test_prompts_go_in_and_training_data_comes_out(folder, capsys):
    assert main(["labels", "import", "mine", "prompts.jsonl"]) == 0
    assert "1 new prompts, 0 new labels, 0 known before, 1 set aside\n  line 2: " in capsys.readouterr().out
    store = LabelStore(folder)
    (prompt,) = store.snapshot().prompts
    metal, fish = (one.id for one in store.candidates(prompt))
    for labeler, ranks in (("anna", {metal: 1, fish: 2}), ("ben", {metal: 2, fish: 1})):
        store.add_label(prompt, labeler, Ranking(ranks))
    store.add_label(prompt, "anna", Edit(fish, "An element."))
    assert main(["labels", "export", "mine"]) == 0
    out = capsys.readouterr().out
    assert "1 edit" in out
    assert "2 ranking" in out
    assert "disagree about 1 pairs" in out
    (conversation,) = read_jsonl(folder / "labels" / "messages.jsonl", Conversation)
    assert conversation.messages[-1].content == "An element."
    assert len(list(read_jsonl(folder / "labels" / "preferences.jsonl", Preference))) == 3
    assert main(["labels", "export", "mine", "--labeler", "ben", "--out", "ben"]) == 0
    assert len(list(read_jsonl(folder.parent / "ben" / "preferences.jsonl", Preference))) == 1
    (folder.parent / "other").mkdir()
    assert main(["labels", "import", "other", "mine/labels/labels.jsonl"]) == 0
    assert LabelStore("other").snapshot().labels == store.snapshot().labels
    capsys.readouterr()
    assert main(["labels", "agreement", "mine", "--json"]) == 0
    people, _ = json.loads(capsys.readouterr().out)
    assert (people["who"], people["pairs"]) == ("people", {"count": 1, "agreed": 0.0, "kappa": 0.0})
    assert main(["labels", "agreement", "mine"]) == 0
    assert "anna, ben" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["import", "mine"], "needs a JSONL file"),
        (["import", "nowhere", "prompts.jsonl"], "no folder"),
        (["import", "mine", "none.jsonl"], "none.jsonl does not exist"),
        (["import", "mine", "problems"], "is not a run"),
        (["import", "mine", "chat"], "no reply of the chat"),
        (["export", "mine"], "has no labels yet"),
        (["export", "mine", "prompts.jsonl"], "has no use for 'prompts.jsonl'"),
        (["import", "mine", "prompts.jsonl", "--rows", "0"], "rows is 1 or more"),
    ],
)
def test_a_mistake_gets_one_line(folder, capsys, words, why):
    assert main(["labels", *words]) == 2
    errors = capsys.readouterr().err
    assert why in errors
    assert errors.count("\n") == 1


def test_a_judge_needs_a_name_and_labels_to_be_compared_with(folder, capsys):
    main(["labels", "import", "mine", "prompts.jsonl"])
    capsys.readouterr()
    assert main(["labels", "judge", "mine"]) == 2
    assert "--model" in capsys.readouterr().err
    assert main(["labels", "judge", "mine", "--model", "big"]) == 2
    assert "nobody has ranked" in capsys.readouterr().err
    with closing(sqlite3.connect(folder / "labels.sqlite")) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
