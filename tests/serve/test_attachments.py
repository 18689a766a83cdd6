"""Files that a person attaches in the page."""

import json

import httpx
import pytest

from crawltalk.core.errors import BadInput
from crawltalk.serve import Settings
from crawltalk.serve.ui.attachments import MAX_BYTES, MAX_CHARACTERS, read_document
from crawltalk.serve.ui.routes import routes
from support.serving import serving

PARAGRAPH = (
    "Obsidian is a volcanic glass. People have used it for blades since the Stone Age, as it breaks sharply. "
)
PAGE = f"""<!doctype html><html><head><title>Obsidian - Rocks</title></head><body>
<nav><a href="/">Home</a> <a href="/rocks">Rocks</a> <a href="/login">Log in</a></nav>
<article><h1>Obsidian</h1><p>{PARAGRAPH * 3}</p><p>{PARAGRAPH * 3}</p></article>
<script>track()</script><footer>Imprint | Terms</footer></body></html>"""


@pytest.fixture(scope="module")
def client():
    settings = Settings(hosts=("127.0.0.1",), max_body=MAX_BYTES + 10)
    with (
        serving(settings, routes=routes(None, {}, None, settings)) as running,
        httpx.Client(base_url=running.url, timeout=60) as client,
    ):
        yield client


def test_the_main_text_of_a_page_is_read_under_its_headline():
    text = read_document("obsidian.html", PAGE.encode()).text
    assert text.startswith("Obsidian\n") and PARAGRAPH.strip() in text
    assert "Log in" not in text and "Imprint" not in text and "track" not in text


@pytest.mark.parametrize(
    ("name", "body", "text"),
    [
        ("a.md", b"# Rocks\n\n* obsidian", "# Rocks\n\n* obsidian"),
        ("README.md", b"<h1>Rocks</h1>\n\nObsidian", "<h1>Rocks</h1>\n\nObsidian"),
        ("a.py", b"print(1)", "print(1)"),
        ("a.jsonl", b'{"a": 1}', '{"a": 1}'),
        ("a.csv", b"a,b\n1,2", "a,b\n1,2"),
        ("plain", "Größe".encode(), "Größe"),
        (
            "a.txt",
            "Die Größe der Körper wächst, sagt man in München.".encode("cp1252"),
            "Die Größe der Körper",
        ),
        ("a.txt", "Größe".encode("utf-16"), "Größe"),
        ("a.txt", b"\xef\xbb\xbfabc", "abc"),
    ],
)
def test_texts_are_read_as_they_stand_in_any_encoding(name, body, text):
    assert read_document(name, body).text.startswith(text)


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("a.txt", b"", "empty"),
        ("a.txt", b" \n", "empty"),
        ("a.html", b"<html><body></body></html>", "no text in it"),
        ("a.pdf", b"%PDF-1.7\n1 0 obj", "no text: attach a text, Markdown or HTML file"),
        ("a.txt", bytes(range(256)) * 20, "no text"),
        ("a.docx", b"PK\x03\x04 and so on", "no text"),
        (
            "a.txt",
            b"fine text with \xff\xfe\xfd\xff\xff\xfe bytes \x81\x8d\x8f\x90\x9d" * 9,
            "cannot be read",
        ),
        ("a.txt", b"x" * (MAX_BYTES + 1), "more than 2,000,000 bytes"),
        ("a.txt", b"word " * (MAX_CHARACTERS // 5 + 1), "more than 400,000 characters"),
    ],
)
def test_a_file_that_is_no_text_is_refused_in_one_line(name, body, said):
    with pytest.raises(BadInput, match=said) as error:
        read_document(name, body)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_a_file_is_sent_as_it_is_and_its_text_comes_back(client):
    answer = client.post("/api/document", params={"name": "a b.md"}, content="Größe".encode())
    assert answer.json() == {"name": "a b.md", "text": "Größe"}
    refused = client.post("/api/document", params={"name": "a"}, content=b"")
    assert refused.status_code == 400 and refused.json()["error"]["message"] == "'a' is empty"
    assert client.post("/api/document", content=b"x" * (MAX_BYTES + 11)).status_code == 413


def ask(client, documents, question="What is obsidian?", **fields):
    body = {"model": "tiny", "messages": [{"role": "user", "content": question}], "max_tokens": 4, "seed": 1}
    response = client.post("/api/answer", json=body | {"documents": documents} | fields)
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert response.status_code == 200 and lines.pop() == "[DONE]"
    return list(map(json.loads, lines))


def test_an_answer_comes_behind_what_was_read_and_is_followed_by_its_sentence(client):
    document = {"name": "rocks.txt", "text": PARAGRAPH}
    first, *texts, last = ask(client, [document])
    message = first["reading"].pop("message")
    assert PARAGRAPH in message and message.endswith("What is obsidian?")
    assert first == {"reading": {"read": len(PARAGRAPH), "characters": len(PARAGRAPH)}}
    assert all(list(event) == ["text"] for event in texts) and texts
    assert not last["supported"]  # a random model's words stand in no document
    assert last["citations"][0]["quote"] == "Obsidian is a volcanic glass."
    assert last["citations"][0]["title"] == "rocks.txt"


def test_a_document_that_is_too_long_is_cut_to_what_fits(client):
    text = "The ferry leaves at nine. " * 5000 + PARAGRAPH + "The ferry comes back. " * 5000
    first, *_, last = ask(client, [{"name": "long.txt", "text": text}])
    assert 0 < first["reading"]["read"] < first["reading"]["characters"] == len(text)
    assert last["citations"][0]["quote"] == "Obsidian is a volcanic glass."
    [error] = ask(client, [{"name": "long.txt", "text": text}], "Why? " * 500)
    assert "maximum context length" in error["error"]["message"]
    [error] = ask(client, [{"name": "long.txt", "text": " "}])
    assert error["error"]["message"] == "'long.txt' is empty"
