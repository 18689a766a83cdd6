"""What tests of the page do in a browser."""

import json

from playwright.sync_api import expect

from crawltalk.chat.render import ChatRenderer
from crawltalk.serve.ui.routes import routes
from support.serving import TOKENIZER, serving


def page_of_a_model(settings):
    """A server of a small random model with its page."""
    return serving(settings, routes=routes(None, {"tiny": ChatRenderer(TOKENIZER)}, None, settings))


def say(tab, text):
    tab.get_by_label("Message", exact=True).fill(text)
    expect(tab.get_by_role("button", name="Send", exact=True)).to_be_enabled()
    tab.get_by_label("Message", exact=True).press("Enter")


def wait_for_answer(tab):
    tab.get_by_role("button", name="Regenerate").last.wait_for()
    tab.get_by_role("button", name="Send", exact=True).wait_for()


def answer_with(tab, deltas, finish="stop"):
    """Let the model say this, for what a model of the tests' size never says. Returns the requests that came."""
    bodies = []
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"

    def fulfil(route):
        bodies.append(route.request.post_data_json)
        route.fulfill(status=200, content_type="text/event-stream", body=body)

    tab.route("**/v1/chat/completions", fulfil)
    return bodies
