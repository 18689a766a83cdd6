"""What others wrote does not steer the terminal: replies, tables, files that are shown."""

import json
import unicodedata
from pathlib import Path

import pytest

from crawltalk.cli import main
from crawltalk.run.console import console, print_table
from crawltalk.verbs.talk import _Screen

HOSTILE = "before\x1b]0;title\x07 \x1b[2J\x1b[31m\x9b1m\r\x08 \u202eafter"
"""A title, an empty screen, colours by two ways of writing, what was there overwritten, another direction."""


def steers(text: str) -> bool:
    """Whether a terminal would do more than show it."""
    return any(letter not in "\n\t" and unicodedata.category(letter) in ("Cc", "Cf") for letter in text)


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output as a terminal without colours."""
    monkeypatch.setattr(console, "_force_terminal", True)
    monkeypatch.setattr(console, "_color_system", None)


def test_a_reply_that_comes_in_pieces(capsys: pytest.CaptureFixture[str]) -> None:
    screen = _Screen()
    for letter in f"<think>{HOSTILE}</think>{HOSTILE}":
        screen.write(letter)
    screen.end()
    shown = capsys.readouterr().out
    assert shown.count("before") == shown.count("after") == 2 and not steers(shown)


def test_lines_and_tables(capsys: pytest.CaptureFixture[str]) -> None:
    console.print(HOSTILE, markup=False)
    print_table(("name", "text"), [(HOSTILE, HOSTILE)])
    shown = capsys.readouterr().out
    assert shown.count("before") == 3 and not steers(shown)


@pytest.mark.parametrize("name", ["page.txt", "rows.jsonl", "rows.json", "recipe.toml"])
def test_files_that_are_shown(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.dumps({"text": HOSTILE})
    text = {"page.txt": HOSTILE, "recipe.toml": f"text = {rows[9:-1]}"}.get(name, rows + "\n")
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    main(["show", str(tmp_path / name)])
    shown = capsys.readouterr().out
    assert "before" in shown and not steers(shown)
