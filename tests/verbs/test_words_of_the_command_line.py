"""Mistakes on the command line cost one line, and no work."""

import json
import re
import shlex

import pytest

from crawltalk.cli import main


def conversation(prompt: str, reply: str) -> str:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]
    return json.dumps({"messages": messages}) + "\n"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("report a --compare b", "--compare takes 2 values, one after the other, and got 1"),
        ("report --compare a b --out .", "is a folder; name a file: --out"),
        ("report --compare a b --out file/x.html", "a file is in its way; choose another with --out"),
        ("redteam house --out file", "cannot be a folder: a file is in its way"),
        ("redteam house --out red --sarif .", "is a folder; name a file: --sarif"),
        ("redteam house --out red --attacks in_the_wild", "takes templates of yours: --templates FILE"),
        ("redteam house --out red --templates .", "is a folder; name a file"),
        ("audit chats.jsonl --model a --out file", "a file is in its way"),
        ("audit silent.jsonl", "no reply that is learned|no conversation that can be read"),
        ("trace words --by bm25 --sources 2", "--sources belong to passages"),
        ("trace words --by influence --prompt ' '", "the prompt is empty"),
        ("trace words --by ngrams --rows 0", "rows are 1 or more"),
        ("judge garrak house", "did you mean 'garak'"),
        ("judge garak nothing", "there is no model at nothing"),
    ],
)
def test_a_mistake_is_named_before_any_work(command, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "chats.jsonl").write_text(conversation("Hello?", "Hi."))
    (tmp_path / "silent.jsonl").write_text(
        json.dumps({"messages": [{"role": "user", "content": "?"}]}) + "\n"
    )
    assert main(shlex.split(command)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert re.search(said, " ".join(lines)) and lines[-1].startswith("error: ")


def test_rows_of_a_file_that_cannot_be_read_are_counted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chats.jsonl").write_text(conversation("Hello?", "Hi.") + '{"bad\n')
    assert main(["audit", "chats.jsonl"]) == 0
    assert "1 of 2 rows set aside; the first, row 2:" in " ".join(capsys.readouterr().err.split())
