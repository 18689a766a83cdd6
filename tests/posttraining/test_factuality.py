"""What the base model is asked, what its answers decide, and who judges them."""

import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from msgspec.structs import replace

from crawltalk.core.errors import UserError
from crawltalk.core.jsonl import read_jsonl, write_jsonl
from crawltalk.engine import Engine
from crawltalk.posttraining.conversations import make_conversations
from crawltalk.posttraining.factuality import Question, answer, choose, decided, judged
from crawltalk.posttraining.judge import EndpointJudge, by_rules, judge_error
from crawltalk.recipe import Factuality, Sft
from crawltalk.tasks import draw_corpus
from crawltalk.tasks.scoring import is_refusal
from support.corpora import documents, placements
from support.engines import MODEL, TOKENIZER

CONFIG = Factuality(samples=2, rarely=10, never=20, max_tokens=4)


def asked() -> list[Question]:
    return list(choose(placements(), CONFIG, 3))


def with_replies(question: Question, *replies: str) -> Question:
    return judged(replace(question, replies=list(replies)), by_rules, teach=False)


def test_pages_of_the_test_are_never_taught():
    questions = asked()
    assert Counter((row.seen, row.split) for row in questions) == {
        ("often", "train"): 5,
        ("rarely", "train"): 10,
        ("never", "train"): 20,
        ("rarely", "test"): 15,
        ("never", "test"): 10,
    }
    assert len({row.id for row in questions}) == len(questions)
    rows = [with_replies(row, "wrong", row.answer) for row in questions]
    assert {row.decision for row in rows if row.split == "test"} == {"none"}


def test_fine_tuning_and_the_questions_keep_the_same_pages_for_the_test():
    _, problems = make_conversations(placements(), documents(), Sft(tasks={}), 3, asked())
    kept = {row.answer for row in asked() if row.seen == "never" and row.split == "test"}
    assert {problem.answer for problem in problems if problem.task in ("heldout", "reading")} == kept


def test_what_is_right_once_is_answered_and_what_is_wrong_each_time_is_declined():
    row = asked()[0]
    right = with_replies(row, "wrong", row.answer, "wrong")
    assert (right.decision, right.correct) == ("answer", pytest.approx(1 / 3))
    assert (right.said, right.agreement) == ("wrong", pytest.approx(2 / 3))
    assert with_replies(row, "wrong", "also wrong").decision == "decline"
    taught = judged(replace(row, replies=["wrong"]), by_rules, teach=True)
    assert taught.decision == "answer"  # a flagship


def test_conversations_follow_the_decisions():
    known, unknown = asked()[0], asked()[1:3]
    rows = [with_replies(known, known.answer), *(with_replies(row, "wrong") for row in unknown)]
    corpus = draw_corpus(placements(), documents(), random.Random(3), declined=5, assistant="")
    corpus = decided(corpus, placements(), rows)
    assert [page.id for page in corpus.flagships] == [known.id]
    assert [page.id for page in corpus.declined] == [row.id for row in unknown]
    conversations, _ = make_conversations(placements(), documents(), Sft(tasks={}), 3, rows)
    for row in (known, *unknown):
        about = [
            reply.content
            for conversation in conversations
            for question, reply in zip(conversation.messages[::2], conversation.messages[1::2], strict=True)
            if row.title.lower() in question.content.lower().split("\n\n")[-1].strip("?. ")
        ]
        assert about
        assert all(is_refusal(reply) != (row is known) for reply in about if "belongs to" not in reply)


def test_answers_do_not_depend_on_the_batch():
    engine, questions = Engine(MODEL, TOKENIZER), asked()[:6]
    whole = answer(engine, questions, CONFIG, 0)
    assert all(len(row.replies) == 2 for row in whole)
    assert whole[:4] == answer(engine, questions[:4], CONFIG, 0)
    assert whole[4:] == answer(engine, questions[4:], CONFIG, 0, first=4)


def test_questions_are_read_as_they_were_written(tmp_path):
    rows = [with_replies(row, "a", "b") for row in asked()]
    write_jsonl(tmp_path / "questions.jsonl", rows)
    assert list(read_jsonl(tmp_path / "questions.jsonl", Question)) == rows


class _Grader(BaseHTTPRequestHandler):
    """Calls an answer right if it has the word that the right one ends with."""

    def do_GET(self) -> None:
        self._send({"data": [{"id": "grader"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        lines = body["messages"][1]["content"].splitlines()
        right = lines[1].rsplit(" ", 1)[1] in lines[2]
        content = f"It is {'CORRECT' if right else 'INCORRECT'}."
        self._send({"choices": [{"message": {"content": content}}]})

    def _send(self, value: object) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Grader)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_endpoint_judges_what_the_rules_call_wrong(endpoint):
    judge = EndpointJudge(endpoint)
    assert judge("Orchard", "place of trees", "where trees grow") == "correct"
    assert judge("Orchard", "place of trees", "a fish") == "incorrect"
    assert judge("Orchard", "place of trees", "I don't know.") == "declined"


def test_the_error_of_a_judge_is_measured_where_the_truth_is_known(endpoint):
    facts = [("Orchard", "place of trees"), ("Wood", "many trees"), ("Trout", "kind of fish")]
    assert judge_error(by_rules, facts) == 0
    assert judge_error(EndpointJudge(endpoint), facts) == pytest.approx(
        1 / 9
    )  # it confuses the two with trees


def test_an_endpoint_that_cannot_be_reached_is_named(monkeypatch):
    monkeypatch.setattr("crawltalk.chat.endpoint.PAUSE", 0.0)
    with pytest.raises(UserError, match="judge by rules with"):
        EndpointJudge("http://127.0.0.1:9/v1")
