"""Answers with the server's tools, which the page asks for."""

import json
from typing import Any, ClassVar

import httpx
import pytest

from crawltalk.serve import Settings
from crawltalk.serve.ui.answers import Answers
from crawltalk.serve.ui.routes import routes
from crawltalk.tools.answers import Answerer
from crawltalk.tools.grounded import NOTHING_FOUND
from crawltalk.tools.tool import Tool, ToolResult
from crawltalk.tools.toolbox import Surroundings
from support.searchable import run_with
from support.serving import serving

ASK = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "What is helium?"}],
    "max_tokens": 300,
    "seed": 1,
}


class Coin(Tool):
    """A tool whose calls even a random model ends."""

    name = "coin"
    description = "Shows a side."
    parameters: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {"side": {"enum": ["heads", "tails"]}},
        "required": ["side"],
        "additionalProperties": False,
    }

    def call(self, arguments):
        return ToolResult.of(f"{arguments['side']}!", self.name)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    run = run_with(tmp_path_factory.mktemp("run"), "1", ["Helium\nHelium is a <b>gas</b>."])
    around = Surroundings(run=run, context=2048)
    tools = {
        "tiny": Answerer(["calculator"], around, call_first=True),
        "tiny/sft": Answerer(["search"], around),
    }
    tools["tiny"].tools = [Coin()]
    settings = Settings(keys=("k",), hosts=("127.0.0.1",))
    pages = routes(None, {}, None, settings, answers=Answers(tools, run))
    with (
        serving(settings, routes=pages) as running,
        httpx.Client(base_url=running.url, headers={"authorization": "Bearer k"}, timeout=60) as client,
    ):
        yield client


def events(response: httpx.Response) -> list[dict]:
    assert response.status_code == 200 and response.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return list(map(json.loads, lines))


def test_calls_are_made_here_and_shown_with_their_results(server):
    found = events(server.post("/api/answer", json=ASK | {"tools": True}))
    kinds = [next(iter(event)) for event in found]
    at = kinds.index("call")
    assert found[at]["call"]["function"]["name"] == "coin" and kinds[at + 1] == "result"
    result = found[at + 1]["result"]
    assert result["call"] == found[at]["call"]["id"] and result["source"] == "coin"
    assert result["text"] in ("heads!", "tails!") and not result["error"]


def test_a_result_says_whether_others_wrote_it_and_a_forbidden_tool_is_not_offered(server):
    found = events(server.post("/api/answer", json=ASK | {"tools": ["coin", "other"]}))
    assert [event["result"]["outside"] for event in found if "result" in event] == [True]
    none = events(server.post("/api/answer", json=ASK | {"tools": ["other"], "max_tokens": 4}))
    assert all("result" not in event and "call" not in event for event in none)


def test_an_answer_comes_from_the_documents_if_asked_for_and_cites_its_page(server):
    first, second = events(server.post("/api/answer", json=ASK | {"search_first": True, "max_tokens": 4}))
    [citation] = first["citations"]
    assert citation["title"] == "Helium" and citation["quote"] == "Helium is a <b>gas</b>."
    assert second == {"text": citation["quote"]}  # a random model's words stand in no passage
    other = ASK | {
        "search_first": True,
        "messages": [{"role": "user", "content": "Who painted the Mona Lisa?"}],
    }
    assert events(server.post("/api/answer", json=other)) == [{"citations": []}, {"text": NOTHING_FOUND}]
    plain = events(server.post("/api/answer", json=ASK | {"max_tokens": 4}))
    assert all(list(event) == ["text"] for event in plain)


def test_the_page_learns_what_there_is(server):
    about = server.get("/api/about").json()
    assert [tool["name"] for tool in about["tools"]] == ["coin", "search"] and about["search"] is True


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"model": "absent"}, 404, "no model 'absent'"),
        ({"messages": []}, 400, "messages"),
        ({"temperature": -1}, 400, "temperature"),
        ({"messages": [{"role": "user", "content": "long " * 3000}]}, 200, "maximum context length"),
    ],
)
def test_a_mistake_is_said_in_one_line(server, change, status, said):
    response = server.post("/api/answer", json=ASK | change)
    assert response.status_code == status
    body = events(response)[-1] if status == 200 else response.json()
    assert said in body["error"]["message"] and "\n" not in body["error"]["message"]


def test_a_key_is_needed_as_everywhere(server):
    assert httpx.post(f"{server.base_url}/api/answer", json=ASK).status_code == 401
