"""Search in a run's documents, as a tool and before an answer."""

import pytest

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.tools.answers import Answerer
from crawltalk.tools.loop import Limits
from crawltalk.tools.toolbox import Surroundings, make_tools
from support.searchable import run_with

PAGES = [
    "Dysprosium\nDysprosium is a chemical element. Its melting point is 1412 degrees." + " It is soft." * 60,
    "Paris\nParis is the capital of France. The Seine flows through it.",
    "Helium\nHelium is a gas. Its melting point is very low.",
]


@pytest.fixture
def run(tmp_path):
    return run_with(tmp_path, "1", PAGES)


def test_the_tool_numbers_passages_with_title_and_address(run):
    [tool] = make_tools(["search"], Surroundings(run=run))
    result = tool.call({"query": "What is the melting point of dysprosium?"})
    assert result.text.shown.startswith(
        "[1] Dysprosium (https://a.example/0)\nDysprosium is a chemical element."
    )
    assert "\n[2] Helium (https://a.example/2)\n" in result.text.shown
    assert tool.call({"query": "zyzzyva"}).text.shown == "nothing found"
    assert tool.call({"query": "?"}).text.shown == "nothing found"


def test_a_result_fits_a_small_context(run):
    [tool] = make_tools(["search"], Surroundings(run=run, context=256))
    result = tool.call({"query": "dysprosium"})
    assert "[2]" not in result.text.shown and len(result.text) < 320 <= 2 * Limits.of_context(256).result


def test_a_person_is_told_where_the_tool_looks(run):
    assert "looks through" in Answerer(["search"], Surroundings(run=run)).notices[0]


def test_without_documents_it_says_what_to_do(run):
    with pytest.raises(BadInput, match="--call-first needs tools"):
        Answerer([], Surroundings(run=run), call_first=True)
    (run.path / "data" / "manifest.json").unlink()
    with pytest.raises(MissingInput):
        make_tools(["search"], Surroundings(run=run))
