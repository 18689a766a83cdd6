"""A model as a labeler, over HTTP."""

import contextlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from crawltalk.core.errors import BadInput, UserError
from crawltalk.labels import Ranking
from crawltalk.labels.agreement import agreements
from crawltalk.labels.judge import judge
from support.labels import store_with


@contextlib.contextmanager
def endpoint(verdict):
    """An endpoint of OpenAI's API that answers with verdict(reply A, reply B)."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            replies = re.findall(r"\[Reply [AB]\]\n(.*?)\n\[End", body["messages"][-1]["content"], re.S)
            try:
                status, answer = 200, verdict(*replies)
            except ConnectionError as error:
                status, answer = 503, str(error)
            message = {"choices": [{"message": {"role": "assistant", "content": answer}}]}
            content = json.dumps(message if status == 200 else {"error": answer}).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            thread.join()


def longer(first, second):
    verdict = "tie" if len(first) == len(second) else "A" if len(first) > len(second) else "B"
    return json.dumps({"verdict": verdict})


@pytest.fixture
def ranked(tmp_path):
    """Two prompts whose longer replies a person prefers."""
    store, prompts, ids = store_with(tmp_path, {"one": ["a", "aaa", "aa"], "two": ["b", "bb"]})
    store.add_label(prompts["one"], "anna", Ranking({ids["aaa"]: 1, ids["aa"]: 2, ids["a"]: 3}))
    store.add_label(prompts["two"], "anna", Ranking({ids["bb"]: 1, ids["b"]: 2}))
    return store


def test_a_judge_ranks_what_people_ranked_and_agrees_as_far_as_it_does(ranked):
    with endpoint(longer) as url:
        done = judge(ranked, url, "long")
        again = judge(ranked, url, "long")
    assert (done.rankings, done.known, done.pairs, done.inconsistent, done.unreadable) == (2, 0, 4, 0, 0)
    assert (again.rankings, again.known) == (0, 2)
    (row,) = [row for row in agreements(ranked.snapshot()) if row.who == "judge:long"]
    assert (row.pairs.count, row.pairs.agreed, row.tau) == (4, 1.0, 1.0)


def test_a_judge_that_prefers_a_place_or_says_nothing_has_ties_only(ranked):
    with endpoint(lambda *_: '{"verdict": "A"}') as first, endpoint(lambda *_: "I cannot say.") as silent:
        assert judge(ranked, first, "first").inconsistent == 4
        assert judge(ranked, silent, "silent").unreadable == 4
    ranks = [label.value.ranks for label in ranked.snapshot().labels if label.labeler == "judge:first"]
    assert {rank for each in ranks for rank in each.values()} == {1}


def test_an_endpoint_that_vanishes_keeps_what_it_has_judged(ranked, monkeypatch):
    monkeypatch.setattr("crawltalk.chat.endpoint.PAUSE", 0.0)

    def fails_at_the_second_prompt(first, second):
        if "b" in first:
            raise ConnectionError("out of money")
        return longer(first, second)

    with endpoint(fails_at_the_second_prompt) as url, pytest.raises(UserError, match=r"503.*out of money"):
        judge(ranked, url, "long")
    with pytest.raises(UserError, match="no answer"):
        judge(ranked, url, "long")
    with endpoint(longer) as url:
        assert judge(ranked, url, "long").known == 1


def test_a_judge_needs_rankings_of_people(tmp_path):
    store, _, _ = store_with(tmp_path, {"one": ["a", "b"]})
    with pytest.raises(BadInput, match="nobody"):
        judge(store, "http://127.0.0.1:1/v1", "any")
