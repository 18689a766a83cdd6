"""Anthropic's Messages API with the official client."""

import json
from collections.abc import Iterator
from typing import Literal

import anthropic
import httpx
import pydantic
import pytest

from crawltalk.serve import Settings
from support.serving import NEVER, TOKENIZER, Running, serving

WEATHER = {
    "name": "weather",
    "description": "The weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {
            "city": {"enum": ["Oslo", "Rome"]},
            "day": {"type": "integer", "minimum": 1, "maximum": 7},
        },
        "required": ["city", "day"],
    },
}
GO_ON = {"seed": 7, "logit_bias": NEVER}
"""Ours, in the client's `extra_body`: a reproducible reply that goes on to its limit."""
ENDING = {"logit_bias": {str(TOKENIZER.eot): 100.0}}
HELLO = [{"role": "user", "content": "Hello"}]
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(Settings(hosts=("127.0.0.1",))) as running:
        yield running


def client_of(server: Running, key: str = "-") -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key=key, max_retries=0)


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[anthropic.Anthropic]:
    with client_of(server) as client:
        yield client


def asked(**fields: object) -> dict:
    """A greeting, to be answered by 12 tokens."""
    return {"model": "tiny", "messages": HELLO, "max_tokens": 12, "extra_body": GO_ON} | fields


def test_a_message_is_the_reply_of_chat(client, server):
    message = client.messages.create(**asked(system="Be kind."))
    chat = httpx.post(
        f"{server.url}/v1/chat/completions",
        json={
            "model": "tiny",
            "messages": [{"role": "system", "content": "Be kind."}, *HELLO],
            "max_tokens": 12,
        }
        | GO_ON,
    ).json()
    [block] = message.content
    assert (block.type, block.text) == ("text", chat["choices"][0]["message"]["content"])
    assert (message.role, message.stop_reason, message.stop_sequence) == ("assistant", "max_tokens", None)
    assert (
        message.usage.input_tokens + message.usage.cache_read_input_tokens == chat["usage"]["prompt_tokens"]
    )
    assert message.usage.output_tokens == 12
    assert message._request_id == message.id.removeprefix("msg_")
    blocks = [
        {"type": "text", "text": "Be ", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "kind."},
    ]
    turns = [{"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}]
    assert client.messages.create(**asked(system=blocks, messages=turns)).content == message.content
    system = [{"role": "system", "content": "Be kind."}, *HELLO]
    assert client.messages.create(**asked(messages=system)).content == message.content


def test_why_a_message_ends(client):
    def end(**fields: object) -> tuple[str | None, str | None]:
        message = client.messages.create(**asked(**fields))
        return message.stop_reason, message.stop_sequence

    text = client.messages.create(**asked()).content[0].text
    assert end() == ("max_tokens", None)
    assert end(extra_body=ENDING) == ("end_turn", None)
    assert end(stop_sequences=["never", text[3:6], text[4:6]]) == ("stop_sequence", text[3:6])
    assert end(max_tokens=9000) == ("model_context_window_exceeded", None)
    assert client.messages.create(**asked(extra_body=ENDING)).content == []


def test_a_streams_events_have_the_official_names_and_order_and_make_the_whole_message(client, server):
    whole = client.messages.create(**asked())
    raw = httpx.post(f"{server.url}/v1/messages", json=asked(stream=True) | GO_ON).text.strip().split("\n\n")
    names = [event.split("\n")[0].removeprefix("event: ") for event in raw]
    for name, event in zip(names, raw, strict=True):
        assert json.loads(event.split("\n")[1].removeprefix("data: "))["type"] == name
    assert names[:3] == ["message_start", "ping", "content_block_start"]
    assert set(names[3:-3]) == {"content_block_delta"}
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    with client.messages.stream(**asked()) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == message.content[0].text == whole.content[0].text
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 12)
    given = [one.usage.input_tokens + one.usage.cache_read_input_tokens for one in (message, whole)]
    assert given[0] == given[1]
    assert [event.type for event in client.messages.create(**asked(stream=True))][-1] == "message_stop"


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "weather"}])
def test_a_tool_is_used_and_its_result_sent_back(client, choice):
    tools = [WEATHER, {"name": "time", "input_schema": {"type": "object"}}]
    fields = {"tools": tools[:1] if choice["type"] == "any" else tools, "tool_choice": choice}
    fields |= {"max_tokens": 300, "extra_body": {"seed": 1}}
    message = client.messages.create(**asked(**fields))
    [use] = message.content
    assert (use.type, use.name, message.stop_reason) == ("tool_use", "weather", "tool_use")
    assert use.input["city"] in ("Oslo", "Rome")
    with client.messages.stream(**asked(**fields)) as stream:
        kinds = [event.type for event in stream if event.type not in ("ping", "input_json")]
        assert stream.get_final_message().content[0].input == use.input
    assert kinds == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "rain"}]}
    turns = [*HELLO, {"role": "assistant", "content": message.content}]
    turns.append({"role": "user", "content": [result, {"type": "text", "text": "So?"}]})
    for last in ({"type": "none"}, {"type": "auto", "disable_parallel_tool_use": True}):
        again = client.messages.create(**asked(messages=turns, tools=tools, tool_choice=last))
        assert again.content[0].type == "text"
    with pytest.raises(anthropic.BadRequestError, match="no tool_use"):
        client.messages.create(**asked(messages=[{"role": "user", "content": [result]}]))


def test_earlier_turns_are_those_of_chat(client, server):
    def count(turns: list[dict], **fields: object) -> int:
        return client.messages.count_tokens(model="tiny", messages=turns, **fields).input_tokens

    function = {"name": "time", "arguments": '{"zone": "UTC"}'}
    spelled = [
        *HELLO,
        {"role": "assistant", "content": "Well.", "tool_calls": [{"id": "1", "function": function}]},
        {"role": "tool", "tool_call_id": "1", "content": "noon"},
        {"role": "user", "content": "And?"},
    ]
    tokens = httpx.post(f"{server.url}/tokenize", json={"model": "tiny", "messages": spelled}).json()["count"]
    use = {"type": "tool_use", "id": "1", "name": "time", "input": {"zone": "UTC"}}
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "x"}
    result = {"type": "tool_result", "tool_use_id": "1", "content": "noon"}
    turns = [
        *HELLO,
        {"role": "assistant", "content": [thought, {"type": "text", "text": "Well."}, use]},
        {"role": "user", "content": [result, {"type": "text", "text": "And?"}]},
    ]
    assert count(turns) == tokens
    assert count(turns, tools=[WEATHER]) > tokens
    assert count(turns, tools=[WEATHER], tool_choice={"type": "none"}) == tokens
    used = client.messages.create(**asked(messages=turns)).usage
    assert used.input_tokens + used.cache_read_input_tokens == tokens


def test_a_last_turn_of_the_assistant_is_how_the_reply_begins(client, server):
    begun = [*HELLO, {"role": "assistant", "content": "The end"}]
    message = client.messages.create(**asked(messages=begun))
    asked_in_chat = {"model": "tiny", "messages": HELLO}
    ids = httpx.post(f"{server.url}/tokenize", json=asked_in_chat).json()["ids"] + TOKENIZER.encode("The end")
    continued = {"model": "tiny", "prompt": ids, "max_tokens": 12} | GO_ON
    answer = httpx.post(f"{server.url}/v1/completions", json=continued).json()
    assert message.content[0].text == answer["choices"][0]["text"]
    assert client.messages.count_tokens(model="tiny", messages=begun).input_tokens == len(ids)


def test_a_reply_obeys_a_schema(client):
    class Reply(pydantic.BaseModel):
        city: Literal["Oslo", "Rome"]
        sure: bool

    parsed = client.messages.parse(**asked(max_tokens=200, output_format=Reply, extra_body={"seed": 1}))
    assert parsed.parsed_output.city in ("Oslo", "Rome")


def test_what_is_not_read_is_named(server):
    fields = {
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "metadata": {"user_id": "1"},
        "tools": [WEATHER, {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}],
        "system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
    }
    answer = httpx.post(f"{server.url}/v1/messages", json=asked(**fields) | {"extra_body": 0})
    assert answer.headers["x-crawltalk-ignored"] == (
        "extra_body, thinking, metadata, tools.max_uses, system.cache_control, tools (web_search_20250305)"
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, r"messages\[0\].role"),
        (
            {"messages": [{"role": "user", "content": [IMAGE]}]},
            r"messages.0.content.0: .* no image",
        ),
        ({"messages": [{"role": "user", "content": "x" * 5000}]}, "maximum context length"),
        ({"messages": [{"role": "user", "content": "x" * 400}] * 6}, "messages do not fit"),
        ({"tool_choice": {"type": "any"}}, "no such function"),
        ({"tool_choice": {"type": "tool", "name": "other"}, "tools": [WEATHER]}, "no such function"),
        ({"stop_sequences": ["x"] * 17}, "stop_sequences"),
        ({"tools": [WEATHER] * 129}, "tools"),
        ({"extra_body": {"logit_bias": {"99999": 1}}}, "99999"),
    ],
)
def test_what_is_wrong_is_told_in_anthropics_form(client, fields, words):
    with pytest.raises(anthropic.BadRequestError, match=words) as caught:
        client.messages.create(**asked(**fields))
    assert caught.value.body["type"] == "error"
    assert caught.value.body["error"]["type"] == "invalid_request_error"
    assert caught.value.body["request_id"] == caught.value.response.headers["request-id"]


def test_other_errors_are_of_their_kinds(client, server):
    with pytest.raises(anthropic.NotFoundError, match="there are: tiny"):
        client.messages.create(**asked(model="other"))
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.list()
    assert httpx.get(f"{server.url}/v1/messages").json()["error"]["type"] == "invalid_request_error"
    assert httpx.post(f"{server.url}/v1/messages", content=b"{").json()["type"] == "error"
    with serving(Settings(rate=1, timeout=0.05, max_body=2000)) as other, client_of(other) as hasty:
        with pytest.raises(anthropic.APIStatusError) as caught:
            hasty.messages.create(**asked(max_tokens=1900))
        assert (caught.value.status_code, caught.value.body["error"]["type"]) == (504, "timeout_error")
        with pytest.raises(anthropic.RateLimitError):
            hasty.messages.create(**asked())
    with serving(Settings(timeout=0.05, max_body=2000)) as other, client_of(other) as hasty:
        with pytest.raises(anthropic.APIStatusError, match="timeout_error"):
            list(hasty.messages.create(**asked(max_tokens=1900, stream=True)))
        with pytest.raises(anthropic.RequestTooLargeError) as caught:
            hasty.messages.create(**asked(system="x" * 2000))
        assert caught.value.body["error"]["type"] == "request_too_large"


def test_a_key_comes_in_either_header():
    with serving(Settings(keys=("secret",))) as server:
        body = asked() | {"extra_body": 0}
        for headers, status in (
            ({}, 401),
            ({"x-api-key": "secret"}, 200),
            ({"x-api-key": "secret", "anthropic-version": "2023-06-01"}, 200),
            ({"authorization": "Bearer secret"}, 200),
            ({"authorization": "Bearer secret", "x-api-key": "other"}, 200),
            ({"authorization": "Bearer other", "x-api-key": "secret"}, 200),
            ({"authorization": "Basic secret"}, 401),
            ({"x-api-key": "other"}, 401),
            ({"x-api-key": ""}, 401),
        ):
            assert (
                httpx.post(f"{server.url}/v1/messages", json=body, headers=headers).status_code == status
            ), headers
        assert httpx.get(f"{server.url}/v1/models", headers={"x-api-key": "secret"}).status_code == 200
        with client_of(server, "secret") as client:
            assert client.messages.create(**asked()).usage.output_tokens == 12
        with client_of(server, "other") as client, pytest.raises(anthropic.AuthenticationError) as caught:
            client.messages.create(**asked())
        assert caught.value.body["error"]["type"] == "authentication_error"
