"""Figures that the documents quote: of a run, and of EXPERIMENTS.md. docs/figures.toml says where each is from."""

import importlib.util
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLE = tomllib.loads((ROOT / "docs" / "figures.toml").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"(?<![\w.,-])\d[\d,]*(?:\.\d+)*(?!\d)")
"""Not the digits of a name, such as those of SmolLM2-135M."""
HEADING = re.compile(r"^##+ (.*)\n", re.MULTILINE)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("check_figures", ROOT / "scripts" / "check_figures.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules["check_figures"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(page: str) -> list[str]:
    """Paragraphs, and rows of tables, each in one line."""
    parts = re.split(r"\n\s*\n|\n(?=\|)", re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE))
    return [" ".join(part.split()) for part in parts if part.strip()]


def passages(file: str, passage: str) -> list[str]:
    """Where a passage stands in a file; with ... at its end, the rows or paragraphs that begin with it."""
    found = blocks((ROOT / file).read_text(encoding="utf-8"))
    start = passage.removesuffix("...")
    if start != passage:
        return [block for block in found if block.startswith(start)]
    return [passage for block in found for _ in range(block.count(passage))]


def numbers(text: str) -> set[str]:
    return set(NUMBER.findall(text))


def test_every_figure_of_a_run_stands_once_in_its_document(script):
    assert len(list(script.quoted(TABLE))) > 50


@pytest.mark.parametrize(
    ("file", "passage"), [(file, passage) for file, rows in TABLE["experiments"].items() for passage in rows]
)
def test_figures_of_experiments_stand_in_the_section_that_they_are_from(file, passage):
    page = (ROOT / "EXPERIMENTS.md").read_text(encoding="utf-8")
    _, *parts = HEADING.split(page)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    [text] = passages(file, passage)
    known = set().union(*(numbers(sections[name]) for name in TABLE["experiments"][file][passage]))
    assert numbers(text) - known == set()


def test_the_readme_quotes_no_result_that_nothing_checks(script):
    results = README[README.index("On 2 CPU cores") : README.index("For a capable assistant")]
    results += README[README.index("## How fast it is") : README.index("## How it works")]
    known = [*TABLE["run"]["README.md"], *TABLE["experiments"]["README.md"]]
    whole = tuple(passage.removesuffix("...") for passage in known if passage.endswith("..."))
    unchecked = []
    for block in blocks(results):
        left = "" if block.startswith(whole) else block
        for passage in known:
            left = re.sub(script.pattern(passage), " ", left)
        # the machine is named, and the header of the scores has the errors of all
        if numbers(left) and not re.search("2 CPU cores|standard errors", left):
            unchecked.append(left)
    assert unchecked == []


def test_the_figures_of_a_run_are_found_by_their_names(script, nano):
    figures = script.figures_of(nano)
    absent = [row.value for row in script.quoted(TABLE) if "has no" in (row.problem(figures) or "")]
    # nano has no such stage, knows no page, and grades them in fewer groups
    assert [key for key in absent if not key.startswith(("grpo.", "scores.known_kept", "recall.5."))] == []
    assert figures["crawl.metrics.pages"] > 1000 and 0 <= figures["scores.flagship"] <= 1


@pytest.mark.parametrize(
    ("said", "value", "right"),
    [
        ("28,082", "a", True),
        ("28,083", "a", False),
        ("28", "a /1e3", True),
        ("28.2", "a /1e3", False),
        ("28.2", "a /1e3 ±0.1", True),
        ("20", "a /1e3 ×1.5", True),
        ("10", "a /1e3 ×1.5", False),
        ("28,000", "a ≥", True),
        ("28,000", "a ≤", False),
        ("28,090", "Σ[ab]", True),
        ("8", "[ab]", False),
        ("8", "c", False),
        ("8", "b about 3", False),
    ],
)
def test_a_quoted_figure_is_compared_as_its_digits_and_its_tolerance_say(script, said, value, right):
    row = script.Quoted("README.md", "", said, value)
    assert (row.problem({"a": 28082.0, "b": 8.0}) is None) == right


def test_what_a_run_contradicts_is_printed_and_fails(script, nano, tmp_path, capsys):
    assert script.main(tmp_path) == 2
    assert "is no finished run" in capsys.readouterr().err
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals" / "scores.json").write_text("{")
    assert script.main(tmp_path) == 2
    assert "is damaged" in capsys.readouterr().err
    assert script.main(nano) == 1
    out = capsys.readouterr().out
    assert "wrong: README.md: '| crawl | {} | {} | {} MB | {} pages, {} MB of WARC |' says 28,082" in out
