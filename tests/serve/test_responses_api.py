"""OpenAI's Responses API with the official client."""

import json
import time
from collections.abc import Iterator

import httpx
import langchain_openai
import openai
import pydantic
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from langchain_core.tools import tool

from crawltalk.serve import Settings
from crawltalk.serve.api.protocol import TextFormat, UserMessage
from crawltalk.serve.api.responses_protocol import ModelResponse, TextConfig
from crawltalk.serve.api.store import ResponseStore, Stored
from support.serving import NEVER, TOKENIZER, Running, serving

WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"enum": ["Oslo", "Rome"]},
            "day": {"type": "integer", "minimum": 1, "maximum": 7},
        },
        "required": ["city", "day"],
        "additionalProperties": False,
    },
    "strict": True,
}
GO_ON = {"seed": 7, "logit_bias": NEVER}
"""Ours, in the client's `extra_body`: a reproducible reply that goes on to its limit."""
ENDING = {"logit_bias": {str(TOKENIZER.eot): 100.0}}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(Settings(hosts=("127.0.0.1",))) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client:
        yield client


def create(client: openai.OpenAI, **fields: object) -> openai.types.responses.Response:
    """The response to a greeting, of 12 tokens."""
    asked = {"model": "tiny", "input": "Hello", "max_output_tokens": 12, "extra_body": GO_ON}
    return client.responses.create(**asked | fields)


def refused(client: openai.OpenAI, param: str | None, **fields: object) -> openai.BadRequestError:
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, **fields)
    assert caught.value.param == param, caught.value
    return caught.value


def test_a_response_is_the_reply_of_chat(client):
    response = create(client, instructions="Be kind.", metadata={"for": "a test"})
    chat = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}],
        max_tokens=12,
        extra_body=GO_ON,
    )
    assert response.output_text == chat.choices[0].message.content
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (response.usage.input_tokens, response.usage.output_tokens) == (chat.usage.prompt_tokens, 12)
    assert response.usage.total_tokens == chat.usage.total_tokens
    assert (response.instructions, response.metadata) == ("Be kind.", {"for": "a test"})
    assert [item.type for item in response.output] == ["message"]
    items = [
        {"role": "developer", "content": "Be kind."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
    ]
    assert create(client, input=items).output_text == response.output_text


def test_a_response_that_ends_by_itself_is_complete(client):
    response = create(client, extra_body=ENDING)
    assert (response.status, response.incomplete_details, response.output_text) == ("completed", None, "")
    assert response.output[0].status == "completed"


def test_a_streams_events_have_the_official_names_and_order_and_end_in_the_whole_response(client):
    whole = create(client)
    events = list(create(client, stream=True))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].response.status == "in_progress"
    assert "".join(event.delta for event in events[4:-4]) == events[-4].text == whole.output_text
    last = events[-1].response
    assert (last.status, last.usage.output_tokens) == ("incomplete", 12)
    assert last.output[0].content == whole.output[0].content
    with client.responses.stream(model="tiny", input="Hello", extra_body=ENDING) as stream:
        assert stream.get_final_response().status == "completed"


def test_event_lines_carry_the_names_and_no_done_follows(server):
    asked = {"model": "tiny", "input": "Hello", "max_output_tokens": 3, "stream": True}
    lines = httpx.post(f"{server.url}/v1/responses", json=asked).text.strip().split("\n\n")
    for line in lines:
        name, data = line.split("\n")
        assert name == f"event: {json.loads(data.removeprefix('data: '))['type']}"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "weather"}])
def test_a_function_is_called_and_its_result_sent_back(client, choice):
    tools = [WEATHER, {"type": "function", "name": "time", "parameters": None}]
    asked = {"tools": tools[:1] if choice == "required" else tools, "tool_choice": choice}
    asked |= {"max_output_tokens": 300, "extra_body": {"seed": 1}}
    response = create(client, **asked)
    [call] = response.output
    assert (call.type, call.name, response.status) == ("function_call", "weather", "completed")
    assert json.loads(call.arguments)["city"] in ("Oslo", "Rome")
    events = list(create(client, **asked, stream=True))
    assert [event.type for event in events[2:]] == [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert events[4].arguments == call.arguments
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    by_id = create(client, input=[result], previous_response_id=response.id, tools=tools)
    history = [{"role": "user", "content": "Hello"}, call.model_dump(exclude_none=True), result]
    by_items = create(client, input=history, tools=tools)
    assert by_id.output_text == by_items.output_text
    assert by_id.usage.input_tokens == by_items.usage.input_tokens
    refused(client, "input[0].call_id", input=[result])


def test_pydantic_reads_what_was_parsed(client):
    class Reply(pydantic.BaseModel):
        count: int = pydantic.Field(ge=0, le=99)
        sure: bool

    asked = {"model": "tiny", "input": "Hello", "text_format": Reply, "extra_body": {"seed": 1}}
    assert 0 <= client.responses.parse(**asked).output_parsed.count <= 99
    with client.responses.stream(**asked) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Reply)
    plain = create(client, text={"format": {"type": "json_object"}})
    assert plain.output_text.startswith("{")


def test_a_conversation_goes_on_from_a_response_and_its_instructions_do_not(client):
    first = create(client, instructions="Be kind.")
    second = create(client, input="And?", previous_response_id=first.id)
    turns = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "And?"},
    ]
    assert second.output_text == create(client, input=turns).output_text
    assert second.previous_response_id == first.id
    assert client.responses.retrieve(second.id) == second
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.delete(first.id)
    create(client, input="So?", previous_response_id=second.id)  # it has the whole conversation
    error = refused(client, "previous_response_id", previous_response_id=first.id)
    assert error.code == "previous_response_not_found"


def test_a_response_that_is_not_stored_is_gone(client):
    unstored = create(client, store=False)
    assert unstored.store is False
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(unstored.id)
    refused(client, "previous_response_id", previous_response_id=unstored.id)
    streamed = list(create(client, stream=True))[-1].response
    with pytest.raises(openai.BadRequestError, match="not as a stream"):
        client.responses.retrieve(streamed.id, stream=True)
    assert client.responses.retrieve(streamed.id).output_text == streamed.output_text


def wait_for(client: openai.OpenAI, response_id: str) -> openai.types.responses.Response:
    """A response that is made in the background, when it has an end."""
    deadline = time.monotonic() + 60
    while (response := client.responses.retrieve(response_id)).status == "in_progress":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return response


def test_a_response_in_the_background_is_there_later_as_if_it_had_been_waited_for(client):
    begun = create(client, background=True)
    assert (begun.status, begun.background, begun.output) == ("in_progress", True, [])
    done = wait_for(client, begun.id)
    assert (done.status, done.output_text, done.usage.output_tokens) == (
        "incomplete",
        create(client).output_text,
        12,
    )
    assert client.responses.cancel(done.id) == done  # it is too late, and no error
    assert create(client, input="And?", previous_response_id=done.id).previous_response_id == done.id


def test_a_response_in_the_background_is_cancelled_and_frees_its_place(server, client):
    begun = create(client, background=True, max_output_tokens=1900)
    refused(client, "previous_response_id", previous_response_id=begun.id)
    cancelled = client.responses.cancel(begun.id)
    assert (cancelled.id, cancelled.status) == (begun.id, "cancelled")
    assert client.responses.cancel(begun.id) == client.responses.retrieve(begun.id) == cancelled
    server.until("running", 0)
    refused(client, "previous_response_id", previous_response_id=begun.id)
    deleted = create(client, background=True, max_output_tokens=1900)
    client.responses.delete(deleted.id)
    server.until("running", 0)
    with pytest.raises(openai.NotFoundError):
        client.responses.cancel(deleted.id)
    with pytest.raises(openai.BadRequestError, match="only a response made in the background"):
        client.responses.cancel(create(client).id)


def test_a_response_in_the_background_that_fails_says_why():
    with serving(Settings(timeout=0.05)) as server, openai.OpenAI(base_url=server.url, api_key="-") as client:
        failed = wait_for(client, create(client, background=True, max_output_tokens=1900).id)
        assert (failed.status, failed.error.code) == ("failed", "timeout")


def test_the_items_that_a_response_was_made_from_are_listed(client):
    call = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"}
    items = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "How is the weather?"},
        {"role": "assistant", "content": "I look."},
        call,
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
    ]
    first = create(client, input=items)
    listed = list(client.responses.input_items.list(first.id, order="asc"))
    kinds = ["message", "message", "message", "function_call", "function_call_output"]
    assert [item.type for item in listed] == kinds
    assert [item.role for item in listed[:3]] == ["system", "user", "assistant"]
    assert [item.content[0].text for item in listed[:3]] == ["Be kind.", "How is the weather?", "I look."]
    assert (listed[3].call_id, listed[3].name, listed[4].output) == ("c1", "weather", "rain")
    second = create(client, input="And?", previous_response_id=first.id)
    pages = client.responses.input_items.list(second.id, limit=3)
    assert len(pages.data) == 3 and pages.has_more and pages.data[0].content[0].text == "And?"
    everything = list(pages)  # the client asks for further pages by itself
    assert len(everything) == len({item.id for item in everything}) == 7
    assert everything[1].content[0].text == first.output_text
    background = create(client, background=True)
    [item] = client.responses.input_items.list(background.id)
    assert item.content[0].text == "Hello"
    wait_for(client, background.id)
    assert [one.id for one in client.responses.input_items.list(background.id)] == [item.id]
    with pytest.raises(openai.BadRequestError, match="has no item 'x'"):
        client.responses.input_items.list(first.id, after="x")
    with pytest.raises(openai.BadRequestError, match="limit"):
        client.responses.input_items.list(first.id, limit=0)
    with pytest.raises(openai.NotFoundError):
        client.responses.input_items.list("resp_x")


def test_a_response_is_found_by_the_client_that_asked_for_it_only():
    with serving(Settings(keys=("first", "second"))) as server:
        first, second = (openai.OpenAI(base_url=server.url, api_key=key) for key in ("first", "second"))
        response = create(first)
        assert first.responses.retrieve(response.id).id == response.id
        with pytest.raises(openai.NotFoundError):
            second.responses.retrieve(response.id)
        refused(second, "previous_response_id", previous_response_id=response.id)


def test_log_probabilities_come_if_they_are_included(client):
    asked = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    logprobs = create(client, **asked).output[0].content[0].logprobs
    chat = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "Hello"}],
        max_tokens=12,
        logprobs=True,
        top_logprobs=2,
        extra_body=GO_ON,
    )
    assert [one.model_dump() for one in logprobs] == [
        one.model_dump() for one in chat.choices[0].logprobs.content
    ]
    events = list(create(client, **asked, stream=True))
    assert [
        one.token for event in events if event.type == "response.output_text.delta" for one in event.logprobs
    ] == [one.token for one in logprobs]


def test_what_is_too_long_is_refused_unless_it_may_be_truncated(client):
    turns = [{"role": "user", "content": "x" * 400}] * 6
    error = refused(client, "input", input=turns)
    assert error.code == "context_length_exceeded"
    assert create(client, input=turns, truncation="auto").dropped_messages > 0
    refused(client, "input", input="x" * 4000, truncation="auto")


def test_what_is_not_read_is_named(server):
    asked = {
        "model": "tiny",
        "input": [
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"role": "user", "content": "Hello"},
        ],
        "max_output_tokens": 1,
        "reasoning": {"effort": "low"},
        "text": {"verbosity": "low"},
        "include": ["reasoning.encrypted_content"],
        "tools": [{"type": "web_search"}, {"type": "file_search", "vector_store_ids": []}, WEATHER],
    }
    answer = httpx.post(f"{server.url}/v1/responses", json=asked)
    assert answer.headers["x-crawltalk-ignored"] == (
        "input.id, input.summary, reasoning, text.verbosity, tools.vector_store_ids, tools (web_search), "
        "tools (file_search), include (reasoning.encrypted_content)"
    )
    assert [tool["name"] for tool in answer.json()["tools"]] == ["weather"]


def test_what_would_be_silently_wrong_is_refused_and_the_field_is_named(client):
    refused(client, "store", background=True, store=False)
    refused(client, "stream", background=True, stream=True)
    refused(client, "conversation", conversation="conv_1")
    refused(client, "prompt", prompt={"id": "pmpt_1"})
    refused(client, "tool_choice", tool_choice="required", tools=[{"type": "web_search"}])
    refused(client, "tool_choice.type", tool_choice={"type": "web_search_preview"})
    refused(client, "tools[0].name", tools=[{"type": "function"}])
    refused(client, "max_output_tokens", max_output_tokens=0)
    refused(client, "input", input=[])
    refused(client, "input", input=[{"type": "reasoning"}])
    refused(client, "input[0].type", input=[{"type": "computer_call"}])
    refused(client, "input[0].role", input=[{"content": "Hello"}])
    refused(client, "input[0].content", input=[{"role": "user"}])
    refused(client, "input[0].name", input=[{"type": "function_call", "call_id": "1"}])
    image = {"type": "input_image", "image_url": "data:,"}
    refused(client, "input[0].content[0]", input=[{"role": "user", "content": [image]}])
    schema = {"type": "json_schema", "name": "x", "schema": {"type": "nothing"}}
    refused(client, "text.format", text={"format": schema})
    refused(client, "metadata", metadata={str(key): "" for key in range(17)})
    with pytest.raises(openai.NotFoundError):
        create(client, model="other")


def test_an_error_in_a_stream_is_its_last_event():
    with serving(Settings(timeout=0.05)) as server, openai.OpenAI(base_url=server.url, api_key="-") as client:
        events = list(create(client, max_output_tokens=1900, stream=True))
        assert (events[-1].type, events[-1].response.error.code) == ("response.failed", "timeout")
        assert events[-1].sequence_number == len(events) - 1
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(events[-1].response.id)


def test_langchain_chats_streams_and_calls_tools_by_responses(server):
    @tool
    def weather(city: str) -> str:
        """The weather of a city."""
        return city

    model = langchain_openai.ChatOpenAI(
        model="tiny",
        base_url=f"{server.url}/v1",
        api_key="-",
        max_retries=0,
        max_tokens=60,
        use_responses_api=True,
        extra_body=GO_ON,
    )
    reply = model.invoke("Hello")
    assert reply.usage_metadata["output_tokens"] == 60
    assert "".join(chunk.text for chunk in model.stream("Hello")) == reply.text
    [call] = model.bind_tools([weather], tool_choice="weather").invoke("Hello").tool_calls
    assert call["name"] == "weather"


def stored(response_id: str, text: str) -> Stored:
    response = ModelResponse(
        id=response_id,
        created_at=0,
        status="completed",
        model="tiny",
        instructions=None,
        previous_response_id=None,
        output=[],
        tools=[],
        tool_choice="auto",
        parallel_tool_calls=True,
        text=TextConfig(format=TextFormat()),
        max_output_tokens=None,
        temperature=1.0,
        top_p=1.0,
        truncation="disabled",
        store=True,
        metadata={},
    )
    return Stored(response, (UserMessage(content=text),), 1)


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("123456"), st.integers(0, 9000)), max_size=40)
)
@examples(max_examples=50, deadline=None)
def test_a_store_keeps_within_its_bounds_and_what_was_used_last(asked):
    store = ResponseStore(most=4, most_bytes=20_000)
    for number, (client, name, size) in enumerate(asked):
        store.put(client, stored(f"{name}{number}", "x" * size))
        kept = store.get(client, f"{name}{number}")
        assert kept is not None
        assert kept.messages[0].content == "x" * size
        assert len(store) <= 4
        assert 0 < store.bytes <= 20_000
    for number, (client, name, _) in enumerate(asked):
        store.delete(client, f"{name}{number}")
    assert (len(store), store.bytes) == (0, 0)


def test_what_is_larger_than_the_store_is_not_kept():
    store = ResponseStore(most_bytes=1000)
    store.put("a", stored("1", "x" * 1000))
    assert store.get("a", "1") is None
    store = ResponseStore(most=2)
    for name in "12":
        store.put("a", stored(name, ""))
    store.get("a", "1")
    store.put("a", stored("3", ""))
    assert [store.get("a", name) is not None for name in "123"] == [True, False, True]
