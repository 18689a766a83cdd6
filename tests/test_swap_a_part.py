"""The examples of docs/guides/swap-a-part.md do what it says, in fifteen lines each at most."""

import re
from pathlib import Path
from typing import Any

from crawltalk import recipe
from crawltalk.core.types import Document, Problem
from crawltalk.report.chapter import render
from crawltalk.run.stage import Job, Progress
from crawltalk.tools.loop import Episode

PAGE = (Path(__file__).parents[1] / "docs" / "guides" / "swap-a-part.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def names_in(containing: str, **replaced: str) -> dict[str, Any]:
    code = next(block for block in BLOCKS if containing in block)
    for old, new in replaced.items():
        code = code.replace(f"runs/{old}", new)
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def test_six_parts_are_swapped_in_fifteen_lines_each():
    assert len(BLOCKS) == 6
    assert max(sum(bool(line.strip()) for line in block.splitlines()) for block in BLOCKS) <= 15


def test_the_filter_drops_what_is_mostly_short_lines():
    drop = names_in("def no_lists")["no_lists"]
    texts = ("a\nb\na whole line of text", "One two three four.")
    about = {"id": "<urn:uuid:1>", "dump": "", "url": "", "date": "", "file_path": ""}
    rated = {"language": "en", "language_score": 1.0, "token_count": 9}
    reasons = [drop(Document(text=text, **about, **rated)) for text in texts]
    assert reasons == ["mostly short lines", None]


def test_the_extractor_finds_paragraphs_and_says_if_there_is_none():
    find = names_in("def paragraphs")["paragraphs"]
    assert (
        find(b"<h1>No</h1><p class=x>One <b>two</b>\n three</P><p> </p><p>Four</p>") == "One two three\nFour"
    )
    assert find(b"<div>Nothing</div>") is None


def test_the_verifier_pays_for_brevity_and_not_for_two_numbers():
    judge = names_in("def brief")["brief"]
    problem = Problem(prompt="3 + 4?", answer="7", task="sums")
    replies = ("<think>3 4 5 6 7</think>7", "It is 8", "so " * 10 + "7", "It is 7.", "7 or 8")
    outcomes = [judge(problem, reply).outcome for reply in replies]
    assert outcomes == ["correct", "wrong", "wrong", "correct", "wrong"]


def test_the_batches_learn_the_beginnings_first(nano):
    batches = names_in("def easy_first", nano=str(nano))["easy_first"]
    assert (batches(0).targets[:, 32:] == -100).all() and not (batches(0).targets[:, :32] == -100).all()
    assert not (batches(200).targets == -100).all(dim=0).any()


def test_the_tool_answers_a_call():
    tool = names_in("class Weekday")["Weekday"]()
    assert tool.call({"day": "2026-11-30"}).text.shown == "Monday"
    assert Episode([], [tool]).offered[0].name == "weekday"


def test_the_chapter_is_told(nano, tmp_path):
    chapter = names_in("def longest")["longest"](
        Job(recipe.Report(), {"evals": nano / "evals"}, tmp_path, 0, recipe.Machine(), Progress())
    )
    html = render("Longest", chapter)
    assert re.search(r"The longest reply has \d+ characters", html) and html.count('class="bar"') == 5
