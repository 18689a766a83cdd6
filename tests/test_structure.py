"""The shape of the code, and that the documentation names only what is there."""

import dataclasses
import importlib
import json
import re
import tomllib
from pathlib import Path

import grimp
import pytest

from crawltalk.cli import main
from crawltalk.recipe import Recipe
from crawltalk.recipe.keys import known_keys, type_of

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "crawltalk"
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RECORDS = [ROOT / "EXPERIMENTS.md", ROOT / "CHANGELOG.md"]
"""They tell of the past: their files must be there, their dotted names include figures of benches."""
CHAPTERS = sorted((ROOT / "docs" / "chapters").glob("*.md"))
ARCHITECTURE = ROOT / "docs" / "architecture.md"

SOURCE_FILE = re.compile(r"[\w./-]*\w\.py\b|[\w./-]*/\w+\.cpp\b")
DOTTED = re.compile(r"(?:--)?([a-z_]\w*(?:\.\w+)+)")
FILE_TYPES = {
    "py",
    "json",
    "jsonl",
    "html",
    "toml",
    "tiktoken",
    "safetensors",
    "model",
    "bin",
    "npy",
    "md",
    "sqlite",
}
SCORE = re.compile(r"(?<![\w.,])[01]\.\d\d+(?!\.?\d)")
"""A share or a loss, such as 0.98 or 1.97."""


def names_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def import_circles() -> list[str]:
    """Groups of modules that import each other. Imports in functions and under TYPE_CHECKING count, too."""
    graph = grimp.build_graph("crawltalk", cache_dir=None)
    circles: dict[str, str] = {}
    for module in sorted(graph.modules - circles.keys()):
        ring = graph.find_upstream_modules(module) & graph.find_downstream_modules(module) | {module}
        if len(ring) > 1:
            circles |= dict.fromkeys(ring, " <-> ".join(sorted(ring)))
    return sorted(set(circles.values()))


def test_no_two_files_import_each_other_even_by_a_long_way_round():
    assert import_circles() == []


def code_of(page: str) -> list[str]:
    """All words that a page sets as code: between backticks, and in blocks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    return " ".join([*blocks, *re.findall(r"`([^`]+)`", prose)]).split()


def is_recipe_field(name: str) -> bool:
    """Whether `name` is a dotted field of the recipe, or a section in one; a further stage may have any name."""
    first, *others = name.split(".")
    further = {others[0]: {"kind": "sft"}} if first == "stages" and others else {}
    return type_of(name, known_keys(further)) is not None


def is_object(name: str) -> bool:
    """Whether `name` can be imported: a module, or what stands in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True
    return False


@pytest.mark.parametrize("path", [*DOCS, *RECORDS], ids=names_of)
def test_every_source_file_and_link_in_a_page_exists(path):
    page = path.read_text(encoding="utf-8")
    files = [file for word in code_of(page) for file in SOURCE_FILE.findall(word)]
    links = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", page) if "://" not in target]
    missing = [file for file in files if not ((ROOT / file).exists() or (PACKAGE / file).exists())]
    missing += [link for link in links if link and not (path.parent / link).exists()]
    paths = re.findall(r"(?<![\w/])(?:src/crawltalk|tests|scripts)/[\w/.]*", " ".join(code_of(page)))
    missing += [file for file in paths if not (ROOT / file).exists()]
    assert missing == []


@pytest.mark.parametrize("path", [*DOCS, *RECORDS], ids=names_of)
def test_every_module_function_and_recipe_field_in_a_page_exists(path):
    packages = {entry.stem for entry in PACKAGE.iterdir() if entry.is_dir() or entry.suffix == ".py"}
    sections = {field.name for field in dataclasses.fields(Recipe)}
    missing = []
    for word in code_of(path.read_text(encoding="utf-8")):
        match = DOTTED.match(word.strip("()[]\"',;:"))
        name = match[1] if match and match.end() == len(match.string.split("=")[0]) else ""
        first, last = name.split(".")[0], name.split(".")[-1]
        if first == "crawltalk":
            missing += [] if is_object(name) else [name]
        elif word.startswith("--") and first in sections:
            missing += [] if is_recipe_field(name) else [name]
        elif path in DOCS and first in packages | sections and last not in FILE_TYPES and not last.isupper():
            missing += [] if is_recipe_field(name) or is_object(f"crawltalk.{name}") else [name]
    assert missing == []


def tree() -> set[str]:
    """The packages that the architecture's tree names."""
    page = ARCHITECTURE.read_text(encoding="utf-8")
    block = next(
        part for part in re.findall(r"^```\n(.*?)^```", page, re.S | re.M) if "src/crawltalk/\n" in part
    )
    folders, above = set(), ""
    for line in block.split("src/crawltalk/\n")[1].splitlines():
        indent = len(line) - len(line.lstrip())
        if indent in (2, 4):
            names = re.findall(r"\b[a-z_]+/", re.split(r"\s{2,}", line.strip())[0])
            folders |= {f"{above}{name}" if indent == 4 else name for name in names}
            above = names[-1] if indent == 2 and names else above
    return folders


def test_the_tree_in_the_architecture_is_the_tree():
    folders = {path.parent.relative_to(PACKAGE).as_posix() + "/" for path in PACKAGE.rglob("__init__.py")}
    folders |= {"presets/"}
    assert tree() == folders - {"./"}


def test_the_order_of_imports_in_the_architecture_is_the_one_that_is_checked():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = next(contract["layers"] for contract in contracts["contracts"] if contract["type"] == "layers")
    checked = [", ".join(sorted(re.findall(r"crawltalk\.(\w+)", layer))) for layer in reversed(layers)]
    page = ARCHITECTURE.read_text(encoding="utf-8")
    written = re.search(r"^core\n(?:  < .+\n)+", page, re.MULTILINE)
    assert written
    assert [", ".join(sorted(re.findall(r"\w+", line))) for line in written[0].splitlines()] == checked


@pytest.mark.parametrize("path", CHAPTERS, ids=names_of)
def test_a_chapter_quotes_no_score_of_a_run_but_says_where_it_stands(path):
    """Scores differ a little between processors. Those of one named machine stand in the README."""
    prose = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert SCORE.findall(prose) == []


def figures(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w.,])\d[\d,]*(?:\.\d+)?(?![\w.,]*\d)", text))


def test_figures_of_speed_in_the_readme_are_those_of_the_experiments():
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line for line in page.split("## How fast it is")[1].splitlines() if line.startswith("|")]
    quoted = figures("\n".join(re.sub(r"^\|[^|]*\|", "|", row) for row in rows))
    assert len(quoted) > 30
    assert quoted - figures((ROOT / "EXPERIMENTS.md").read_text(encoding="utf-8")) == set()


def test_the_plans_that_a_chapter_quotes_are_what_the_command_prints(capsys):
    chapter = (ROOT / "docs" / "chapters" / "03-pretraining.md").read_text(encoding="utf-8")
    plans = []
    for words in (["gpt2-xl"], ["llama3.1-405b", "--gpus", "16000", "--utilization", "0.4"]):
        assert main(["plan", *words, "--json"]) == 0
        plans.append(json.loads(capsys.readouterr().out))
    small, large = plans
    assert f"| {small['hours']:.0f} hours, {small['dollars']:,.0f} dollars |" in chapter
    million = 16_000 * large["hours"] / 1e6
    assert f"| {large['flop']:.1e} FLOP, {million:.0f} million GPU hours |".replace("e+", "e") in chapter


@pytest.mark.parametrize("path", [*DOCS, *RECORDS], ids=names_of)
def test_lines_of_a_page_are_not_wider_than_120(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


def test_no_two_test_files_have_one_name():
    """pytest takes them for one module."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
