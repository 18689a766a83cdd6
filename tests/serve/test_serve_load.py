"""The HTTP server under load, and with clients that vanish, dawdle or do not read."""

import contextlib
import gc
import json
import resource
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from crawltalk.serve import Settings
from crawltalk.serve.http import server
from support.clients import in_parallel
from support.serving import HELLO, NEVER, Running, serving

LONG = HELLO | {"max_tokens": 1900, "logit_bias": NEVER}
SHORT = HELLO | {"max_tokens": 20, "logit_bias": NEVER}
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
ENDS = {
    CHAT: "data: [DONE]",
    COMPLETIONS: "data: [DONE]",
    RESPONSES: "event: response.incomplete",
    MESSAGES: "event: message_stop",
}
"""How a stream ends."""


def body_for(path: str, tokens: int) -> dict:
    """A request for a stream of so many tokens."""
    asked = {"model": "tiny", "stream": True, "logit_bias": NEVER}
    match path:
        case "/v1/responses":
            return asked | {"input": "Hello", "max_output_tokens": tokens}
        case "/v1/completions":
            return asked | {"prompt": "Hello", "max_tokens": tokens}
    return asked | HELLO | {"max_tokens": tokens}


def request(running: Running, body: bytes, length: int | None = None, path: str = CHAT) -> bytes:
    """A request as bytes, with a head that promises a body of a length."""
    host = running.url.removeprefix("http://")
    size = len(body) if length is None else length
    return f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n\r\n".encode() + body


def connect(running: Running) -> socket.socket:
    host, port = running.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_vanishes_frees_its_slot_within_a_step(stream):
    with serving() as running:
        with connect(running) as client:
            client.sendall(request(running, json.dumps(LONG | {"stream": stream}).encode()))
            running.until("running", 1)
        running.until("running", 0)
        stats = running.stats()
        assert (stats["cancelled"], stats["blocks_used"]) == (1, 0)
        assert stats["generated_tokens"] < 1900


def test_clients_that_vanish_in_the_middle_of_their_streams_leave_nothing_behind():
    with serving() as running:
        paths = list(ENDS) * 4
        with contextlib.ExitStack() as clients:
            for path in paths:
                client = clients.enter_context(connect(running))
                client.sendall(request(running, json.dumps(body_for(path, 1900)).encode(), path=path))
                while b"data: " not in client.recv(4096):
                    pass
        running.until("running", 0)
        stats = running.stats()
        assert (stats["cancelled"], stats["blocks_used"]) == (len(paths), 0)
        for path in ENDS:  # a stream that nobody read to its end is none to continue
            assert httpx.post(running.url + path, json=body_for(path, 3)).status_code == 200
        assert len(running.server.config.app.state.server.responses) == 1


def test_thirty_two_clients_of_all_endpoints_at_once_and_slow_readers_among_them():
    with serving() as running:
        slow = {path: connect(running) for path in ENDS}
        for path, client in slow.items():
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(request(running, json.dumps(body_for(path, 400)).encode(), path=path))
        alone = {
            path: httpx.post(running.url + path, json=body_for(path, 40) | {"seed": 5}).text for path in ENDS
        }
        with ThreadPoolExecutor(len(ENDS)) as pool:
            answers = {
                path: pool.submit(in_parallel, running.url, 8, body_for(path, 40) | {"seed": 5}, path)
                for path in ENDS
            }
        assert all(texts(stream) for stream in alone.values())
        for path, some in answers.items():
            for answer in some.result():
                assert answer.status_code == 200
                assert texts(answer.text) == texts(alone[path])
                assert answer.text.strip().split("\n\n")[-1].startswith(ENDS[path])
        for path, client in slow.items():
            read = b""
            while not read.endswith(b"0\r\n\r\n"):
                read += client.recv(1024)
                time.sleep(0.0005)
            assert ENDS[path].encode() in read
            client.close()
        running.until("running", 0)


def texts(stream: str) -> str:
    """The text that the events of a stream carry, in any of the forms."""
    text = ""
    for line in stream.splitlines():
        if line.startswith("data: {"):
            event = json.loads(line.removeprefix("data: "))
            [choice] = event.get("choices", [{}])
            delta = event.get("delta", choice.get("delta", {}))
            text += delta if isinstance(delta, str) else delta.get("content", delta.get("text", ""))
            text += choice.get("text", "")
    return text


def test_a_client_that_vanishes_while_it_waits_leaves_the_queue():
    with serving() as running:
        clients = [connect(running) for _ in range(200)]
        for client in clients:
            client.sendall(request(running, json.dumps(LONG).encode()))
        while running.stats()["running"] + running.stats()["waiting"] < 200:
            time.sleep(0.01)
        for client in clients:
            client.close()
        running.until("running", 0)
        running.until("waiting", 0)
        assert httpx.post(f"{running.url}/v1/chat/completions", json=SHORT).status_code == 200


def test_of_a_burst_each_is_served_or_told_to_come_back_and_others_are_unharmed():
    with serving(queue=64) as running:
        with httpx.stream(
            "POST", f"{running.url}/v1/chat/completions", json=LONG | {"stream": True}, timeout=60
        ) as answer:
            lines = answer.iter_lines()
            next(lines)
            burst = in_parallel(running.url, 500, SHORT)
            text = [line for line in lines if line]
        statuses = [one.status_code for one in burst]
        assert {200, 429} == set(statuses)
        assert all(one.json()["usage"]["completion_tokens"] == 20 for one in burst if one.status_code == 200)
        assert all(one.headers["retry-after"] == "1" for one in burst if one.status_code == 429)
        assert (text[-1], '"finish_reason":"length"' in text[-2]) == ("data: [DONE]", True)


def test_two_hundred_streams_at_once_end_without_an_error():
    with serving() as running:
        answers = in_parallel(running.url, 200, SHORT | {"stream": True})
        assert [answer.status_code for answer in answers] == [200] * 200
        for answer in answers:
            events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
            assert events[-1] == "[DONE]"
            assert json.loads(events[-2])["choices"][0]["finish_reason"] == "length"


def test_clients_that_dawdle_with_head_or_body_are_cut_off_and_disturb_nobody(monkeypatch):
    monkeypatch.setattr(server, "_HEAD_SECONDS", 1.0)
    with serving(Settings(body_timeout=1.0)) as running:
        heads = [connect(running) for _ in range(120)]
        bodies = [connect(running) for _ in range(120)]
        for client in bodies:
            client.sendall(request(running, b"{", length=100))
        began = time.monotonic()
        while time.monotonic() < began + 0.8:
            for client in heads:
                client.sendall(b"P")
            assert httpx.post(f"{running.url}/v1/chat/completions", json=SHORT).status_code == 200
            time.sleep(0.1)
        for client in bodies:
            assert client.recv(100).startswith(b"HTTP/1.1 408 ")
        for client in heads:
            assert client.recv(100) == b""
        for client in (*heads, *bodies):
            client.close()


def test_clients_that_do_not_read_are_given_up_and_disturb_nobody(monkeypatch):
    monkeypatch.setattr(server, "_UNREAD_MILLISECONDS", 1000)
    wordy = HELLO | {
        "max_tokens": 1900,
        "logit_bias": NEVER,
        "stream": True,
        "logprobs": True,
        "top_logprobs": 20,
        "n": 8,
    }
    with serving(Settings(timeout=3.0)) as running:
        clients = [connect(running) for _ in range(4)]
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(request(running, json.dumps(wordy).encode()))
        running.until("running", 32)
        assert httpx.post(f"{running.url}/v1/chat/completions", json=SHORT, timeout=30).status_code == 200
        deadline = time.monotonic() + 20
        while running.server.server_state.connections:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for client in clients:
            client.close()


@pytest.mark.slow
def test_memory_does_not_grow_with_requests():
    def resident_after(count: int) -> int:
        """Bytes of this process after so many requests of another one."""
        command = f"from support.clients import post_often; post_often({running.url!r}, {count}, {SHORT})"
        subprocess.run([sys.executable, "-c", command], check=True)
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    with serving(cache_bytes=1 << 22) as running:
        fill = {"model": "tiny", "prompt": [[token, 1] * 950 for token in range(10)], "max_tokens": 1}
        assert httpx.post(f"{running.url}/v1/completions", json=fill, timeout=60).status_code == 200
        assert running.stats()["blocks"] < 10 * 1900 / 16, "the cache was not filled"
        before = resident_after(200)
        assert resident_after(800) - before < 2_000_000
