"""Questions and answers from the documents."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from crawltalk.chat import endpoint
from crawltalk.core.errors import BadInput, UserError
from crawltalk.core.jsonl import read_jsonl
from crawltalk.posttraining import synthesize as module
from crawltalk.posttraining.external_inputs import external_inputs
from crawltalk.posttraining.synthesize import (
    Rejected,
    Sentence,
    Synthesized,
    reading_conversations,
    reject,
    synthesize,
)
from crawltalk.recipe import Machine, Synthesize
from crawltalk.run.stage import STATE, Job, Progress
from crawltalk.tools.grounded import NOTHING_FOUND
from support.library import library, library_index, write_library

TEXTS = {document.id: document.text for document in library()}


def job(folder, **settings) -> Job[Synthesize]:
    out = folder / "out"
    out.mkdir(exist_ok=True)
    config = Synthesize(**{"questions": 50, "test_share": 0.25} | settings)
    return Job(config, {"data": write_library(folder / "data")}, out, 3, Machine(), Progress())


class Peer:
    """A server that writes questions, until it is told to fail."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails_after, self.status = 10**9, 503
        self.url = ""

    def answer(self, body: dict) -> tuple[int, dict]:
        sentence = body["messages"][-1]["content"].partition("Sentence: ")[2].partition("\n")[0]
        if len(self.asked) >= self.fails_after:
            return self.status, {"error": "gone"}
        self.asked.append(sentence)
        return 200, {"choices": [{"message": {"content": f"Is it true that {sentence.rstrip('.')}?"}}]}


@contextmanager
def serving(peer: Peer) -> Iterator[Peer]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, answer = peer.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    peer.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield peer
    finally:
        server.shutdown()
        server.server_close()


def test_every_answer_of_a_template_stands_in_its_page_and_a_page_is_in_one_split(tmp_path):
    metrics = synthesize(job(tmp_path))
    rows = list(read_jsonl(tmp_path / "out" / "questions.jsonl", Synthesized))
    assert metrics["questions"] == len(rows) > 3
    assert all(TEXTS[row.id][row.start : row.end] == row.answer for row in rows)
    assert "What is Castling?" in {row.question for row in rows}
    splits = {row.id: row.split for row in rows}
    assert all(row.split == splits[row.id] for row in rows)
    assert sorted(splits.values()).count("test") <= 1
    assert not {row.question for row in read_jsonl(tmp_path / "out" / "rejected.jsonl", Rejected)} & {
        row.question for row in rows
    }


def test_a_model_learns_to_read_the_answer_in_its_passage_and_to_decline_another_page(tmp_path):
    synthesize(job(tmp_path, test_share=0.0))
    rows = list(read_jsonl(tmp_path / "out" / "questions.jsonl", Synthesized))
    assert all(row.answer in row.passage and row.passage in TEXTS[row.id] for row in rows)
    conversations = reading_conversations(rows, 0)
    assert conversations == reading_conversations(rows, 0)
    assert len(conversations) == len(rows)
    for row, conversation in zip(rows, conversations, strict=True):
        question, answer = conversation.messages
        assert row.question in question.content
        assert (answer.content == row.answer) == (row.passage in question.content)
        assert answer.content in (row.answer, NOTHING_FOUND)
    assert sum(one.messages[1].content == NOTHING_FOUND for one in conversations) == len(rows) // 4


def test_the_same_seed_asks_the_same_and_no_more_than_was_wanted(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        synthesize(job(tmp_path / name, questions=2))
    files = [(tmp_path / name / "out" / "questions.jsonl").read_bytes() for name in ("a", "b")]
    assert files[0] == files[1]
    assert files[0].count(b"\n") == 2


def test_an_endpoint_that_vanishes_is_asked_nothing_twice_when_it_is_back(tmp_path, monkeypatch):
    monkeypatch.setattr(endpoint, "PAUSE", 0.0)
    monkeypatch.setattr(module, "BATCH", 3)
    with serving(Peer()) as whole, serving(Peer()) as broken:
        (tmp_path / "whole").mkdir()
        synthesize(job(tmp_path / "whole", model=whole.url, endpoint_model="peer"))
        broken.fails_after = 5
        again = job(tmp_path, model=broken.url, endpoint_model="peer")
        with pytest.raises(UserError, match=r"gives no answer \(status 503: .*the same command goes on"):
            synthesize(again)
        finished = list(read_jsonl(tmp_path / "out" / STATE / "written.jsonl", list[str]))
        assert len(finished) == 1
        broken.asked.clear()
        broken.fails_after = 10**9
        synthesize(again)
        assert len(broken.asked) == len(whole.asked) - 3
    name = "questions.jsonl"
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / "out" / name).read_bytes()


def test_an_endpoint_that_refuses_is_not_asked_again(tmp_path):
    with serving(Peer()) as peer:
        peer.fails_after, peer.status = 0, 401
        with pytest.raises(BadInput, match="refuses: status 401"):
            synthesize(job(tmp_path, model=peer.url, endpoint_model="peer"))


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("What does the gauge measure?", ""),
        ("A tide gauge measures", "it is not one question of 3 to 40 words"),
        ("What?\nWhy?", "it is not one question of 3 to 40 words"),
        ("What does the gauge in this text measure?", "it points at its text"),
        ("Which emperor built the gauge of marble?", "its words are not those of the answer"),
        ("What is the height of the sea?", "it is not specific"),
    ],
)
def test_a_bad_question_is_rejected_with_its_reason(tmp_path, question, reason):
    document = library()[0]
    start = document.text.index("A tide gauge")
    sentence = Sentence(document=document, start=start, end=len(document.text))
    assert reject(question, sentence, library_index(tmp_path, seas=300)) == reason


def test_the_model_that_writes_decides_the_questions(tmp_path):
    assert external_inputs(Synthesize()) == external_inputs(Synthesize(model="http://localhost/v1")) == {}
    assert external_inputs(Synthesize(model="none-such")) == {"model": "none-such"}
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert str(tmp_path) in str(external_inputs(Synthesize(model=str(tmp_path))))
