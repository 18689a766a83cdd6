"""The labelling page and the thumbs of the chat: the JSON, and both in a browser."""

import json
import re

import pytest
from playwright.sync_api import expect
from starlette.testclient import TestClient

from crawltalk.chat.render import ChatRenderer
from crawltalk.labels import LabelStore, Ranking, Skip, read_instructions
from crawltalk.labels.export import to_preferences
from crawltalk.labels.rows import JUDGE
from crawltalk.serve import Settings, make_app
from crawltalk.serve.ui.routes import routes
from support.labels import asked, replied, store_with
from support.serving import TOKENIZER, serving

REPLIES = {
    "Which is best?": ["alpha", "beta", "gamma", "<img src=x onerror='window.hacked=1'>"],
    "And now?": ["x", "y"],
}


@pytest.fixture
def store(tmp_path, request):
    return store_with(tmp_path, getattr(request, "param", REPLIES))[0]


@pytest.fixture
def client(store):
    settings = Settings(keys=("secret",), max_body=20_000)
    with TestClient(make_app({}, settings, routes(None, {}, None, settings, store))) as client:
        client.headers["authorization"] = "Bearer secret"
        yield client


def next_item(client, labeler="anna", task="write-rank", **more):
    return client.get("/api/labels/next", params={"labeler": labeler, "task": task, **more}).json()


def give(client, item, value, labeler="anna"):
    version = client.get("/api/labels").json()["instructions"]["version"]
    body = {"labeler": labeler, "instructions": version, "prompt": item["prompt"]["id"], "value": value}
    return client.post("/api/labels", json=body)


def test_a_prompt_is_written_to_then_ranked_and_both_can_be_undone(client, store):
    state = client.get("/api/labels").json()
    assert state["batches"] == [{"name": "batch", "prompts": 2}]
    assert state["instructions"]["version"] == read_instructions(store.folder).version
    item = next_item(client)
    assert (item["step"], item["needed"], len(item["candidates"])) == ("ideal", 2, 4)
    assert item["progress"] == {"done": 0, "skipped": 0, "total": 2}
    assert "tiny" not in json.dumps(item["candidates"])  # nobody sees whose replies they are
    assert give(client, item, {"kind": "ideal", "reply": "Mine."}).status_code == 200
    item = next_item(client)
    assert item["step"] == "ranking"
    ranks = {one["id"]: number + 1 for number, one in enumerate(item["candidates"])}
    assert give(client, item, {"kind": "ranking", "ranks": ranks}).status_code == 200
    after = next_item(client)
    assert (after["prompt"]["messages"][0]["content"], after["progress"]["done"]) == ("And now?", 1)
    assert after["counts"] == {"ideal": 1, "ranking": 1}
    give(client, after, {"kind": "skip"})
    assert next_item(client)["prompt"] is None
    undo = {"labeler": "anna", "task": "write-rank"}
    assert client.post("/api/labels/undo", json=undo).json()["step"] == "ideal"  # the skipped one
    undone = client.post("/api/labels/undo", json=undo).json()
    assert (undone["step"], undone["value"]["ranks"]) == ("ranking", ranks)
    undone = client.post("/api/labels/undo", json=undo).json()
    assert (undone["step"], undone["value"]["reply"]) == ("ideal", "Mine.")
    assert client.post("/api/labels/undo", json=undo).status_code == 404
    assert len(store.snapshot(history=True).labels) == 6


def test_the_order_of_replies_differs_between_labelers_and_stays(client):
    orders = [[one["id"] for one in next_item(client, f"labeler {n}")["candidates"]] for n in range(12)]
    assert orders == [
        [one["id"] for one in next_item(client, f"labeler {n}")["candidates"]] for n in range(12)
    ]
    assert len({tuple(order) for order in orders}) > 4


def test_a_label_under_other_instructions_is_refused_until_they_are_read(client, store):
    item = next_item(client)
    old = read_instructions(store.folder).version
    (store.folder / "instructions.md").write_text("# New\n")
    body = {"labeler": "anna", "instructions": old, "prompt": item["prompt"]["id"], "value": {"kind": "skip"}}
    refused = client.post("/api/labels", json=body)
    assert refused.status_code == 409
    assert "reload" in refused.json()["error"]["message"]
    assert give(client, item, {"kind": "skip"}).status_code == 200


def test_what_is_no_label_gets_a_line_that_says_why(client, store):
    item = next_item(client)
    for value, status in (
        ({"kind": "ideal", "reply": "  "}, 400),
        ({"kind": "ranking", "ranks": {"x": 1, "y": 2}}, 400),
        ({"kind": "best"}, 400),
        ({}, 400),
        ("up", 400),
    ):
        answer = give(client, item, value)
        assert answer.status_code == status, value
        assert "\n" not in answer.json()["error"]["message"]
    assert give(client, item, {"kind": "skip"}, f"{JUDGE}me").status_code == 400
    assert give(client, {"prompt": {"id": "none"}}, {"kind": "skip"}).status_code == 404
    assert client.get("/api/labels/next", params={"labeler": "a", "task": "sleep"}).status_code == 400
    long = {"batch": "b", "prompts": [[{"role": "user", "content": "x" * 30_000}]]}
    assert client.post("/api/labels/prompts", json=long).status_code == 413
    assert client.post("/api/labels/prompts", json={"batch": "b", "prompts": [[]]}).status_code == 400
    del client.headers["authorization"]
    assert client.get("/api/labels").status_code == 401
    assert client.post("/api/labels/thumb", json={}).status_code == 401
    assert store.snapshot(history=True).labels == []


def test_prompts_and_replies_are_added_once(client):
    body = {"batch": "mine", "prompts": [[{"role": "user", "content": "New?"}]]}
    assert client.post("/api/labels/prompts", json=body).json() == {"new": 1}
    assert client.post("/api/labels/prompts", json=body).json() == {"new": 0}
    item = next_item(client, batch="mine")
    assert item["candidates"] == []
    sampled = {"labeler": "anna", "prompt": item["prompt"]["id"], "needed": 2, "model": "tiny"}
    sampled |= {"sampling": {"temperature": 1}, "replies": ["one", "two", "two"]}
    shown = client.post("/api/labels/candidates", json=sampled).json()
    assert {one["reply"][0]["content"] for one in shown} == {"one", "two"}
    sampled["replies"] = ["three"]
    assert client.post("/api/labels/candidates", json=sampled).json() == shown


def test_without_a_run_there_is_no_place_for_labels():
    with TestClient(make_app({}, Settings(), routes(None, {}, None, Settings()))) as client:
        assert client.get("/api/about").json()["labels"] is False
        assert client.get("/api/labels").status_code == 404
        assert "--labels" in client.get("/api/labels").json()["error"]["message"]


@pytest.fixture
def tab(chromium, store):
    """A page over a server of a small random model. Errors in the page and requests to other hosts fail the test."""
    settings = Settings()
    pages = routes(None, {"tiny": ChatRenderer(TOKENIZER)}, None, settings, store)
    with serving(settings, routes=pages) as server, chromium.new_context(base_url=server.url) as context:
        tab = context.new_page()
        tab.set_default_timeout(20_000)
        complaints = []
        tab.on(
            "console", lambda message: complaints.append(message.text) if message.type == "error" else None
        )
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda one: None if one.url.startswith(server.url) else complaints.append(one.url))
        yield tab
        assert complaints == []


@pytest.mark.slow
def test_replies_are_ranked_by_keyboard_alone(tab, store):
    tab.goto("/#/labels")
    tab.evaluate("localStorage.setItem('crawltalk.labeler', '\"anna\"')")
    tab.reload()
    tab.get_by_text("Truthful.").wait_for()  # the instructions are open at first
    tab.keyboard.press("i")
    expect(tab.get_by_text("Truthful.")).to_be_hidden()
    tab.get_by_label("Your ideal answer").fill("The first.")
    tab.keyboard.press("Enter")
    cards = tab.locator(".replies li")
    expect(cards).to_have_count(4)
    order = [text.split("\n")[-1] for text in cards.all_inner_texts()]
    assert sorted(order) == sorted(REPLIES["Which is best?"])  # HTML in a reply is text
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("status").filter(has_text="4 replies without a rank")).to_have_count(1)
    for key in ("4", "3", "Backspace", "3", "1", "1"):  # Backspace: the reply that is chosen has no rank yet
        tab.keyboard.press(key)
    tab.keyboard.press("ArrowUp")
    tab.keyboard.press("2")
    tab.keyboard.press("Enter")
    tab.get_by_text("And now?").wait_for()
    (label,) = [label for label in store.snapshot().labels if isinstance(label.value, Ranking)]
    texts = {one.id: one.reply[0].content for one in store.candidates(label.prompt)}
    assert {texts[id_]: rank for id_, rank in label.value.ranks.items()} == dict(
        zip(order, (4, 3, 2, 1), strict=True)
    )
    assert (label.labeler, label.instructions) == ("anna", read_instructions(store.folder).version)
    assert len(to_preferences(store.snapshot())[0]) == 6
    tab.keyboard.press("Escape")
    tab.keyboard.press("s")
    tab.get_by_text("All is labelled").wait_for()
    assert [label.prompt for label in store.snapshot().labels if isinstance(label.value, Skip)] != []
    tab.keyboard.press("u")
    tab.get_by_text("And now?").wait_for()
    tab.keyboard.press("Escape")
    tab.keyboard.press("u")
    pressed = tab.locator(".rank[aria-pressed=true]")
    expect(pressed).to_have_text(["4", "3", "2", "1"])  # what was said is still there
    assert tab.evaluate("window.hacked") is None


AWAY = "http://127.0.0.1:9/?key=abc"
HOSTILE = f"[the timetable]({AWAY}) ![map]({AWAY}) {AWAY}\n\n<img src='{AWAY}'>"


@pytest.mark.slow
@pytest.mark.parametrize("store", [{"Where?": [HOSTILE, "Here."]}], indirect=True)
def test_what_a_reply_links_to_is_asked_about_before_it_is_opened(tab):
    tab.goto("/#/labels")
    tab.evaluate("localStorage.setItem('crawltalk.labeler', '\"anna\"')")
    tab.reload()
    tab.get_by_label("Your ideal answer").fill("There.")
    tab.keyboard.press("Enter")
    replies = tab.locator(".replies")
    expect(replies.get_by_text("the timetable")).to_be_visible()
    expect(replies.locator("img, a[href^='http']")).to_have_count(0)
    expect(replies.locator("button.leave")).to_have_count(3)
    replies.locator("button.leave").first.click()
    expect(
        replies.get_by_text(AWAY, exact=True).first
    ).to_be_visible()  # the whole address, before anything leaves


@pytest.mark.slow
def test_thumbs_of_the_chat_land_in_the_store_with_the_conversation(tab, store):
    tab.goto("/")
    message = tab.get_by_label("Message", exact=True)
    for text in ("One", "Two"):
        message.fill(text)
        expect(tab.get_by_role("button", name="Send", exact=True)).to_be_enabled()
        message.press("Enter")
        expect(tab.get_by_role("button", name="Regenerate")).to_have_count(["One", "Two"].index(text) + 1)
    tab.get_by_role("button", name="Bad reply").last.click()
    tab.locator(".thumbs [aria-pressed=true]").wait_for()
    (label,) = store.snapshot().labels
    (candidate,) = store.candidates(label.prompt)
    first, answer, second = store.prompt(label.prompt).messages
    assert (first, second) == (*asked("One"), *asked("Two"))
    assert answer.role == "assistant"
    assert (label.value.up, candidate.model, label.labeler[:6]) == (False, "tiny", "guest-")
    assert candidate.sampling["temperature"] == 0.3
    assert candidate.reply != replied("")
    tab.reload()
    tab.get_by_role("button", name="One", exact=True).click()
    expect(tab.locator(".thumbs [aria-pressed=true]")).to_have_attribute("aria-label", "Bad reply")
    tab.locator(".thumbs [aria-pressed=true]").click()
    expect(tab.locator(".thumbs [aria-pressed=true]")).to_have_count(0)
    assert store.snapshot().labels == []
    assert LabelStore(store.folder).snapshot(history=True).labels[0] == label


@pytest.mark.slow
def test_a_thumb_under_an_answer_to_a_document_is_kept_with_what_was_read(tab, store):
    tab.goto("/")
    tab.get_by_role("button", name="Attach a document").wait_for()
    with tab.expect_file_chooser() as chooser:
        tab.get_by_role("button", name="Attach a document").click()
    text = b"The ferry leaves at nine."
    chooser.value.set_files({"name": "ferry.txt", "mimeType": "text/plain", "buffer": text})
    message = tab.get_by_label("Message", exact=True)
    message.fill("When?")
    expect(tab.get_by_role("button", name="Send", exact=True)).to_be_enabled()
    message.press("Enter")
    tab.get_by_role("button", name="Good reply").click()
    tab.locator(".thumbs [aria-pressed=true]").wait_for()
    (label,) = store.snapshot().labels
    (asked_about,) = store.prompt(label.prompt).messages
    assert text.decode() in asked_about.content and asked_about.content.endswith("When?")


@pytest.mark.slow
def test_replies_that_are_missing_are_sampled_from_the_model(tab, store):
    tab.goto("/#/labels")
    tab.get_by_text("Add prompts").click()
    tab.get_by_label("A prompt").fill("Something new")
    tab.get_by_role("button", name="Add it").click()
    tab.get_by_text("1 prompt added.").wait_for()
    tab.get_by_label("Prompts", exact=True).select_option("written here")
    tab.get_by_label("Task").select_option("rank")
    expect(tab.locator(".replies li")).to_have_count(4)
    expect(tab.get_by_text(re.compile("0 of 1 done"))).to_be_visible()
    prompt = next(one.id for one in store.snapshot().prompts.values() if one.source == "page")
    assert [one.sampling for one in store.candidates(prompt)] == [
        {"temperature": 1, "top_p": 1, "max_tokens": 256}
    ] * 4
