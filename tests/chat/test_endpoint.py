"""A model behind an OpenAI-compatible endpoint."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from crawltalk.chat.endpoint import Endpoint
from crawltalk.chat.messages import Message
from crawltalk.core.errors import BadInput, UserError

HELLO = [Message("user", "Hello")]


class Server(ThreadingHTTPServer):
    """Answers each request with the next of its answers, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, object]] = []
        self.asked: list[dict] = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._send()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append(json.loads(body) | {"key": self.headers["authorization"]})
        self._send()

    def _send(self) -> None:
        status, value = self.server.answers.pop(0)
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr("crawltalk.chat.endpoint.PAUSE", 0.0)
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def replying(text: str | None) -> tuple[int, object]:
    return 200, {"choices": [{"message": {"content": text}}]}


def test_the_first_model_that_is_listed_replies_with_the_users_key(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server.answers = [(200, {"data": [{"id": "first"}]}), replying(" Hi. "), replying(None)]
    endpoint = Endpoint(server.url + "/", way_out="start it")
    assert endpoint.complete(HELLO, 8) == "Hi."
    assert endpoint.complete(HELLO, 8, stop=["x"]) == ""
    assert server.asked[0]["model"] == "first" and server.asked[0]["key"] == "Bearer secret"
    assert server.asked[0]["messages"] == [{"role": "user", "content": "Hello"}]
    assert server.asked[1]["stop"] == ["x"]


def test_a_failure_is_asked_again_and_a_refusal_is_not(server):
    endpoint = Endpoint(server.url, "m", way_out="start it")
    server.answers = [(503, "busy"), (429, "slow"), replying("Hi.")]
    assert endpoint.complete(HELLO, 8) == "Hi."
    server.answers = [(401, "no key"), replying("never asked")]
    with pytest.raises(BadInput, match=r"refuses: status 401.*no key.*start it"):
        endpoint.complete(HELLO, 8)
    assert len(server.answers) == 1
    server.answers = [(500, "down")] * 3
    with pytest.raises(UserError, match=r"gives no answer .status 500.*down.*; start it"):
        endpoint.complete(HELLO, 8)


@pytest.mark.parametrize("sent", [[], {}, {"choices": []}, {"choices": [{"message": None}]}, "text"])
def test_an_answer_in_another_form_is_shown(server, sent):
    server.answers = [(200, sent)]
    with pytest.raises(BadInput, match=r"in no form of OpenAI's API: .*; start it"):
        Endpoint(server.url, "m", way_out="start it").complete(HELLO, 8)
