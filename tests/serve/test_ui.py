"""The JSON of the page that people use."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from crawltalk.core.documents import write_table
from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.data.record.funnel import REMOVED_COLUMNS, Removed
from crawltalk.run.folder import RunFolder
from crawltalk.serve import Settings, make_app
from crawltalk.serve.ui.browse import MAX_ROWS, list_pages, read_page
from crawltalk.serve.ui.routes import routes
from crawltalk.serve.ui.runs import Runs


def removed(number: int, step: str, reason: str) -> Removed:
    text = f"Title {number}\nText {number}" if step == "quality" else None
    fields = {
        "id": f"<{number}>",
        "url": f"https://a.example/{number}",
        "dump": "d",
        "file_path": "f",
        "detail": "",
    }
    return Removed(**fields, step=step, reason=reason, text=text)


@given(
    st.lists(
        st.tuples(st.sampled_from(["url", "quality"]), st.sampled_from(["a", "b"])), max_size=3 * MAX_ROWS
    ),
    st.data(),
)
@settings(max_examples=25, deadline=None)
def test_a_list_of_dropped_pages_goes_on_where_it_ended(tmp_path_factory, kinds, data):
    folder = tmp_path_factory.mktemp("data")
    rows = [removed(number, step, reason) for number, (step, reason) in enumerate(kinds)]
    middle = data.draw(st.integers(0, len(rows)))
    write_table(folder / "removed-00000.parquet", rows[:middle], REMOVED_COLUMNS)
    write_table(folder / "removed-00001.parquet", rows[middle:], REMOVED_COLUMNS)
    for filters in ({}, {"step": "url"}, {"step": "quality", "reason": "b"}):
        listed, start = [], ""
        while start is not None:
            part = list_pages(folder, "removed", start, filters)
            assert len(part.rows) <= MAX_ROWS
            listed += part.rows
            start = part.next
        expected = [
            row for row in rows if all(getattr(row, name) == value for name, value in filters.items())
        ]
        assert [row["id"] for row in listed] == [row.id for row in expected]
        assert [read_page(folder, "removed", row["place"])["id"] for row in listed] == [
            row.id for row in expected
        ]


def test_a_place_that_is_none_is_the_readers_mistake(tmp_path):
    write_table(tmp_path / "removed-00000.parquet", [removed(0, "url", "a")], REMOVED_COLUMNS)
    for position in ("../../etc/passwd", "0.0", "0.0.x", "0.0.-1"):
        with pytest.raises(BadInput, match="begin again"):
            list_pages(tmp_path, "removed", position, {})
    for position in ("1.0.0", "0.1.0", "0.0.1"):
        with pytest.raises(MissingInput, match="reload"):
            read_page(tmp_path, "removed", position)


def test_only_runs_beside_the_served_one_can_be_asked_for(tmp_path):
    for name in ("mine", "other"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "recipe.toml").write_text("")
    (tmp_path / "recipe.toml").write_text("")
    runs = Runs(RunFolder(tmp_path / "runs" / "mine"))
    assert runs.names() == ["mine", "other"]
    for name in ("..", ".", "", "../runs/mine", str(tmp_path), "other/../mine"):
        with pytest.raises(MissingInput, match="no run"):
            runs.states(name)
    with pytest.raises(MissingInput, match="writes no log"):
        runs.log("mine", "../mine/pretrain", 0)


def test_a_log_is_read_on_by_whole_lines_and_from_the_front_when_it_began_anew(tmp_path):
    run = RunFolder(tmp_path / "mine")
    run.work("pretrain").mkdir(parents=True)
    (run.path / "recipe.toml").write_text("")
    log = run.work("pretrain") / "log.jsonl"
    runs = Runs(run)
    log.write_text('{"step": 0, "loss": 2.0, "samples": ["x"]}\n{"step": 1, "lo')
    first = runs.log("mine", "pretrain", 0)
    assert first.rows == [{"step": 0, "loss": 2.0}]
    log.write_text('{"step": 0, "loss": 2.0, "samples": ["x"]}\n{"step": 1, "loss": 1.0}\n')
    second = runs.log("mine", "pretrain", first.next)
    assert second.rows == [{"step": 1, "loss": 1.0}]
    assert runs.log("mine", "pretrain", second.next).rows == []
    log.write_text('{"step": 0}\n')
    for anywhere in (second.next, 5, 10**9):
        assert runs.log("mine", "pretrain", anywhere).rows == [{"step": 0}]
    assert runs.log("mine", "sft", 0).rows == []


def test_a_model_from_elsewhere_has_no_run_to_show():
    app = make_app({}, Settings(), routes(None, {}, None, Settings()))
    with TestClient(app) as client:
        assert client.get("/").headers["content-type"].startswith("text/html")
        assert client.get("/api/about").json()["run"] is None
        for address in (
            "/api/runs",
            "/api/data/funnel",
            "/api/data/rows?kind=removed",
            "/api/data/search?words=gold",
        ):
            answer = client.get(address)
            assert answer.status_code == 404
            assert answer.json()["error"]["message"].startswith("no run is served")
        for address in (
            "/api/data/rows?kind=cats",
            "/api/data/search?words=a&offset=-1",
            "/api/data/page?kind=documents",
        ):
            assert client.get(address).status_code == 400
        assert client.get("/static/../pages.py").status_code == 404
