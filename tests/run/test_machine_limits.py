"""Machines that lack something: the commands go on without it, or say in one line what they need."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crawltalk.core.errors import UserError
from crawltalk.run.console import run_verb
from crawltalk.run.machine import writable_cache


def unwritable(tmp_path: Path) -> Path:
    """A path where no folder can be made, whoever runs the tests: below a file."""
    path = tmp_path / "file"
    path.touch()
    return path / "home"


def test_a_home_that_can_be_written_keeps_compiled_code(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with writable_cache():
        assert os.environ["XDG_CACHE_HOME"] == str(tmp_path)


@pytest.mark.parametrize("given", [True, False])
def test_without_a_home_compiled_code_is_kept_for_one_command(given, tmp_path, monkeypatch):
    home = str(unwritable(tmp_path))
    monkeypatch.setenv("HOME", home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if given:
        monkeypatch.setenv("XDG_CACHE_HOME", home)
    with writable_cache():
        folder = Path(os.environ["XDG_CACHE_HOME"])
        assert folder.stat().st_mode & 0o77 == 0  # other users cannot put code there
    assert not folder.exists()
    assert os.environ.get("XDG_CACHE_HOME") == (home if given else None)


def test_if_nothing_can_be_written_one_line_says_what_is_needed(tmp_path, monkeypatch):
    nowhere = unwritable(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(nowhere))
    monkeypatch.setattr("tempfile.tempdir", str(nowhere))
    with pytest.raises(UserError, match="set XDG_CACHE_HOME"), writable_cache():
        pass


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_may_not_be_written_is_named_in_one_line(number, capsys):
    def write() -> None:
        raise OSError(number, os.strerror(number), "runs")

    assert run_verb(write) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "runs: " in lines[0]
    assert "--out" in lines[0]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_a_worker_stays_within_a_limit_that_the_process_has_already():
    code = (
        "import resource; from crawltalk.run.processes import limit_memory; resource.setrlimit(resource.RLIMIT_DATA,"
        " (1 << 33, 1 << 33)); limit_memory(1 << 40); print(resource.getrlimit(resource.RLIMIT_DATA)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(done.stdout) == 1 << 33
