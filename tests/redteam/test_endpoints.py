"""Endpoints as targets: whatever they do wrong is neither a success nor a refusal."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from crawltalk.cli import main
from crawltalk.core.errors import BadInput
from crawltalk.redteam.attacks import ATTACKS
from crawltalk.redteam.attempts import ATTEMPTS, AttemptLog
from crawltalk.redteam.endpoints import GIVE_UP, EndpointTarget, check_address
from crawltalk.redteam.frame import NO_DEFENSE, Outcome
from crawltalk.redteam.kept_secrets import secret_goals
from crawltalk.redteam.runner import run_cell
from crawltalk.redteam.scores import read_scores

GOALS = secret_goals(6, seed=0)


class Handler(BaseHTTPRequestHandler):
    """A secretary who tells every secret, or fails in the way that the server was told."""

    def do_GET(self) -> None:
        self.send(200, json.dumps({"data": [{"id": "secretary"}]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked = body["messages"]
        self.server.limits.append(body["max_tokens"])  # type: ignore[attr-defined]
        match self.server.fault:  # type: ignore[attr-defined]
            case "hangs":
                self.server.released.wait(60)  # type: ignore[attr-defined]
            case "garbage":
                self.send(200, "\x00]]>")
            case "limits":
                self.send(429, "slow down")
            case "breaks":
                self.send(200, '{"choices": [{"mess')
            case _:
                secret = asked[0]["content"].split()[6].rstrip(".") if asked[0]["role"] == "system" else ""
                self.send(200, json.dumps({"choices": [{"message": {"content": f"It is {secret}."}}]}))

    def send(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.fault, server.limits, server.released = "", [], threading.Event()  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.released.set()  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


def address(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/v1"


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("hangs", Outcome.NOT_RUN),
        ("limits", Outcome.NOT_RUN),
        ("garbage", Outcome.UNDETERMINED),
        ("breaks", Outcome.UNDETERMINED),
    ],
)
def test_an_endpoint_that_fails_is_not_judged_and_asked_again_later(
    server: ThreadingHTTPServer, tmp_path: Path, fault: str, outcome: Outcome
) -> None:
    target = EndpointTarget(address(server), seconds=2.0 if fault == "hangs" else 30.0, tries=1)
    server.fault = fault  # type: ignore[attr-defined]
    with AttemptLog(tmp_path / ATTEMPTS) as log:
        cell = run_cell(ATTACKS["plain"], GOALS[:2], target, NO_DEFENSE, log, budget=2)
        assert (cell.rate, cell.verdicts[outcome], cell.false_refusals) == (None, 2, None)
    server.fault = ""  # type: ignore[attr-defined]
    with AttemptLog(tmp_path / ATTEMPTS) as log:
        again = EndpointTarget(address(server), seconds=5)
        assert run_cell(ATTACKS["plain"], GOALS[:2], again, NO_DEFENSE, log, budget=2).rate == 1.0


def test_an_endpoint_that_is_gone_is_not_asked_for_ever(server: ThreadingHTTPServer) -> None:
    target = EndpointTarget(address(server), seconds=5, tries=1)
    server.shutdown()
    server.server_close()
    replies = target.answer([goal.prompt for goal in secret_goals(40, seed=0)])
    assert not any(reply.reached for reply in replies)
    assert sum("not asked" in reply.error for reply in replies) >= 40 - GIVE_UP - 8


def test_another_machine_is_attacked_only_if_a_person_says_so() -> None:
    check_address("http://localhost:8000/v1", confirmed=False)
    check_address("https://example.org/v1", confirmed=True)
    with pytest.raises(BadInput, match="is another machine"):
        check_address("https://example.org/v1", confirmed=False)
    with pytest.raises(BadInput, match="is no address"):
        check_address("file:///etc", confirmed=True)


def test_the_verb_scans_an_endpoint_and_fails_its_gate(
    server: ThreadingHTTPServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["redteam", address(server), "--attacks", "plain,base64", "--goals", "3", "--out", str(tmp_path)]
    files = ["--sarif", str(tmp_path / "found.sarif"), "--junit", str(tmp_path / "gates.xml")]
    assert main([*words, "--gate", "0.5", *files]) == 1
    assert "gates failed" in capsys.readouterr().err
    scores = read_scores(tmp_path)
    own = [cell for cell in scores.cells if not cell.target.startswith("null-")]
    assert [(cell.attack, cell.rate) for cell in own] == [("plain", 1.0), ("base64", 1.0)]
    assert all(cell.rate == 0.0 for cell in scores.cells if cell.target.startswith("null-"))
    sarif = json.loads((tmp_path / "found.sarif").read_text())
    results = sarif["runs"][0]["results"]
    assert [(result["ruleId"], result["level"]) for result in results] == [
        ("plain", "error"),
        ("base64", "error"),
    ]
    assert 'failures="2"' in (tmp_path / "gates.xml").read_text()
    assert main([*words, "--gate", "1"]) == 0
    assert main(["redteam", address(server), "--attacks", "plian", "--out", str(tmp_path)]) == 2
    assert "did you mean 'plain'?" in capsys.readouterr().err
    assert main(["redteam", address(server), "--replay", "1", "--out", str(tmp_path)]) == 0
    assert "now: success: It is" in capsys.readouterr().out


def test_a_replay_takes_as_many_tokens_as_the_attempt_had(
    server: ThreadingHTTPServer, tmp_path: Path
) -> None:
    words = ["redteam", address(server), "--out", str(tmp_path)]
    assert main([*words, "--attacks", "plain", "--goals", "1", "--max-tokens", "40"]) == 0
    assert main([*words, "--replay", "1"]) == 0
    assert set(server.limits) == {40}  # type: ignore[attr-defined]
    assert main([*words, "--replay", "1", "--max-tokens", "50"]) == 0
    assert server.limits[-1] == 50  # type: ignore[attr-defined]
