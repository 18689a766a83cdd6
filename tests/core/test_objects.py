"""Objects by name."""

import sys

import pytest

from crawltalk.core.objects import load_object


def test_a_module_in_the_folder_of_the_command_is_found_whatever_began_the_program(tmp_path, monkeypatch):
    (tmp_path / "parts_of_mine.py").write_text("def part():\n    return 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert load_object("parts_of_mine:part")() == 3
    with pytest.raises(ValueError, match="has no colon"):
        load_object("parts_of_mine")
