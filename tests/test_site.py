"""The documentation as a site."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from crawltalk import __version__

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_site_has_every_page_and_the_reference_and_no_link_that_leads_nowhere(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "make_site.py", tmp_path],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "site"
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert [page for page in pages if not (site / page).exists()] == []
    named = (tmp_path / "zensical.toml").read_text(encoding="utf-8")
    assert [page for page in pages if page.with_suffix(".md").as_posix() not in named] == []
    reference = (site / "reference.html").read_text(encoding="utf-8")
    assert (
        "crawltalk.api.Run" in reference
        and "A stage: a function from directories to a directory." in reference
    )
    assert 'src="http' not in (site / "index.html").read_text(encoding="utf-8")


def test_the_version_stands_in_one_place_and_the_documents_name_it():
    guide = (ROOT / "docs" / "guides" / "install.md").read_text(encoding="utf-8")
    assert set(re.findall(r"crawltalk-([\d.]+)-py3", guide)) == {__version__}
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changes, re.MULTILINE)[0] == __version__
    assert not re.search(r'^version = "', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_finding_is_in_the_index():
    index = (ROOT / "findings" / "README.md").read_text(encoding="utf-8")
    scripts = [path.name for path in (ROOT / "findings").glob("*.sh")]
    assert [name for name in scripts if f"]({name})" not in index] == []


def test_the_modules_of_the_reference_exist():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from make_site import MODULES
    finally:
        sys.path.pop(0)
    assert [name for name in MODULES if importlib.util.find_spec(f"crawltalk.{name}") is None] == []
