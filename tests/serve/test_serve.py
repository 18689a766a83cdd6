"""The HTTP server with real clients."""

import base64
import json
import logging
import pathlib
import subprocess
import sys
import threading
import time
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import langchain_openai
import numpy as np
import openai
import pydantic
import pytest
import schemathesis
import torch
import transformers
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool

from crawltalk.chat.messages import FunctionCall, Message
from crawltalk.chat.messages import ToolCall as ChatToolCall
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import UserError
from crawltalk.serve import Settings
from crawltalk.serve.api.chat import conversation
from crawltalk.serve.api.protocol import (
    AllowedTools,
    AllowedToolsChoice,
    AssistantMessage,
    Call,
    ChatRequest,
    Function,
    NamedTool,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    ToolName,
    ToolReference,
    UserMessage,
)
from crawltalk.serve.api.tools import Tools
from crawltalk.serve.http.middleware import RateLimiter
from crawltalk.serve.http.server import listen
from crawltalk.verbs.serve import models_of
from support.serving import HELLO, MODEL, NEVER, TOKENIZER, Running, serving

WEATHER = {
    "name": "weather",
    "description": "The weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Oslo", "Rome"]}, "day": {"$ref": "#/$defs/Day"}},
        "required": ["city", "day"],
        "additionalProperties": False,
        "$defs": {"Day": {"type": "integer", "minimum": 1, "maximum": 7}},
    },
}
NO_BLANKS = {str(byte): -100.0 for byte in b"\t\n\r "}
"""A random model would write blanks between the parts of its JSON to its limit."""
TIME = {"name": "time"}
TOOLS = [{"type": "function", "function": WEATHER}, {"type": "function", "function": TIME}]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    def trace(text: str, tokens: list[int]) -> list[dict]:
        return [{"characters": len(text), "tokens": len(tokens)}]

    with serving(Settings(hosts=("127.0.0.1",)), tracers={"tiny": trace}) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client:
        yield client


def post(server: Running, path: str, **body: object) -> httpx.Response:
    return httpx.post(server.url + path, json=body, timeout=60)


def refused(
    server: Running, status: int, param: str | None, path: str = "/v1/chat/completions", **body: object
) -> str:
    """The message of an error that is as OpenAI's."""
    answer = post(server, path, **body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param), error
    assert set(error) == {"message", "type", "param", "code"}
    return error["message"]


def test_a_seed_makes_a_reply_reproducible_whole_and_streamed(client):
    request = {
        "messages": HELLO["messages"],
        "model": "tiny",
        "max_tokens": 20,
        "seed": 7,
        "n": 2,
        "logit_bias": NEVER,
    }
    whole = client.chat.completions.create(**request)
    texts, finishes = ["", ""], [None, None]
    for chunk in client.chat.completions.create(
        **request, stream=True, stream_options={"include_usage": True}
    ):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            finishes[choice.index] = choice.finish_reason or finishes[choice.index]
        usage = chunk.usage
    assert texts == [choice.message.content for choice in whole.choices]
    assert texts[0] != texts[1]
    assert finishes == ["length", "length"] == [choice.finish_reason for choice in whole.choices]
    assert usage.completion_tokens == whole.usage.completion_tokens == 40
    assert usage.prompt_tokens_details.cached_tokens > 0
    assert whole.usage.prompt_tokens == len(
        ChatRenderer(TOKENIZER).encode_chat([Message("user", "Hello")], add_generation_prompt=True)
    )


def test_without_a_seed_two_replies_differ(client):
    request = {"messages": HELLO["messages"], "model": "tiny", "max_tokens": 20, "logit_bias": NEVER}
    first, second = (client.chat.completions.create(**request).choices[0].message.content for _ in range(2))
    assert first != second


def test_a_stop_string_ends_a_reply_and_is_no_part_of_it(client):
    request = {
        "messages": HELLO["messages"],
        "model": "tiny",
        "temperature": 0,
        "max_tokens": 40,
        "logit_bias": NEVER,
    }
    text = client.chat.completions.create(**request).choices[0].message.content
    stop = text[5:7]
    choice = client.chat.completions.create(**request, stop=stop).choices[0]
    assert (choice.message.content, choice.finish_reason) == (text[: text.index(stop)], "stop")


@torch.no_grad()
def test_log_probabilities_are_those_of_the_model(client):
    request = {
        "messages": HELLO["messages"],
        "model": "tiny",
        "temperature": 0,
        "max_completion_tokens": 5,
        "logit_bias": NEVER,
    }
    whole = (
        client.chat.completions.create(**request, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    )
    chunks = list(client.chat.completions.create(**request, logprobs=True, top_logprobs=3, stream=True))
    streamed = [
        token for chunk in chunks if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.content
    ]
    assert streamed == whole
    prompt = ChatRenderer(TOKENIZER).encode_chat([Message("user", "Hello")], add_generation_prompt=True)
    result = torch.log_softmax(MODEL(torch.tensor([prompt]))[0, -1], -1)
    likeliest = result.topk(3)
    assert [token.logprob for token in whole[0].top_logprobs] == pytest.approx(
        likeliest.values.tolist(), abs=1e-4
    )
    assert [bytes(token.bytes) for token in whole[0].top_logprobs] == [
        TOKENIZER.word(i) for i in likeliest.indices.tolist()
    ]
    assert whole[0].logprob == pytest.approx(
        float(result[TOKENIZER.encode(bytes(whole[0].bytes))[0]]), abs=1e-4
    )


def test_a_reply_obeys_a_schema(client):
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "maximum": 99, "minimum": 0}},
        "required": ["n"],
    }
    schema["additionalProperties"] = False
    form = {"type": "json_schema", "json_schema": {"name": "number", "schema": schema}}
    for seed in range(5):
        request = {
            "messages": HELLO["messages"],
            "model": "tiny",
            "seed": seed,
            "max_tokens": 200,
            "logit_bias": NO_BLANKS,
        }
        choice = client.chat.completions.create(**request, response_format=form).choices[0]
        assert 0 <= json.loads(choice.message.content)["n"] <= 99
        plain = client.chat.completions.create(**request, response_format={"type": "json_object"})
        assert plain.choices[0].message.content.lstrip().startswith("{")


def test_a_function_without_parameters_that_must_be_called_is_called(client):
    for function in (TIME, TIME | {"parameters": {"type": "object", "properties": {}}}):
        tools = [{"type": "function", "function": function}]
        request = {"messages": HELLO["messages"], "model": "tiny", "seed": 1, "max_tokens": 60}
        reply = client.chat.completions.create(**request, tools=tools, tool_choice="required").choices[0]
        assert (reply.finish_reason, reply.message.tool_calls[0].function.arguments) == ("tool_calls", "{}")


class Place(pydantic.BaseModel):
    """What pydantic writes for these types, llguidance does not read in full."""

    path: pathlib.Path | None
    kinds: set[typing.Literal["a", "b"]] = pydantic.Field(max_length=2)
    code: str = pydantic.Field(json_schema_extra={"pattern": "^(?=x)x"}, max_length=4)


def test_pydantic_reads_a_reply_that_has_to_be_of_its_type(client):
    class Reply(pydantic.BaseModel):
        count: int = pydantic.Field(ge=0, le=99)
        sure: bool

    request = {"messages": HELLO["messages"], "model": "tiny", "seed": 1, "max_tokens": 200}
    reply = client.chat.completions.parse(**request, response_format=Reply).choices[0].message.parsed
    assert 0 <= reply.count <= 99


def test_what_of_a_schema_is_not_obeyed_is_named(server):
    form = {"type": "json_schema", "json_schema": {"schema": Place.model_json_schema()}}
    answer = post(server, "/v1/chat/completions", **HELLO, response_format=form, max_tokens=9, seed=1)
    assert answer.status_code == 200, answer.text
    ignored = answer.headers["x-crawltalk-ignored"]
    for word in ("response_format (pattern)", "uniqueItems", "Unknown format: path"):
        assert word in ignored


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_that_must_be_called_is_called_with_arguments_of_its_schema(client, choice, stream):
    request = {
        "messages": HELLO["messages"],
        "model": "tiny",
        "seed": 1,
        "temperature": 0.2,
        "max_tokens": 300,
    }
    request |= {"tools": TOOLS[:1], "tool_choice": choice, "logit_bias": NO_BLANKS}
    if stream:
        chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**request, stream=True)]
        [call] = [call for chunk in chunks for call in chunk.delta.tool_calls or ()]
        assert (call.index, chunks[-1].finish_reason) == (0, "tool_calls")
    else:
        reply = client.chat.completions.create(**request).choices[0]
        assert (reply.finish_reason, reply.message.content) == ("tool_calls", None)
        [call] = reply.message.tool_calls
    arguments = json.loads(call.function.arguments)
    assert call.function.name == "weather"
    assert arguments["city"] in ("Oslo", "Rome")
    assert 1 <= arguments["day"] <= 7
    tool_result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    called = {"role": "assistant", "tool_calls": [call.model_dump()]}
    again = client.chat.completions.create(
        model="tiny",
        messages=[*HELLO["messages"], called, tool_result],
        max_tokens=3,
        tools=TOOLS,
        tool_choice="none",
    )
    assert again.usage.prompt_tokens > 100


def test_a_tool_that_must_be_called_is_called_by_each_of_a_thousand_replies(server):
    text = {"type": "string", "maxLength": 3}
    parameters = [
        None,
        {"type": ["object", "null"]},
        WEATHER["parameters"],
        {"anyOf": [{"type": "object", "properties": {"a": text}}, {"type": "null"}]},
    ]
    tools = [
        {"type": "function", "function": {"name": f"f{index}", "parameters": one}}
        for index, one in enumerate(parameters)
    ]
    endless = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    called: Counter[str] = Counter()
    for seed, temperature in enumerate((0.1, 0.5, 1, 1, 1, 1.5, 2, 2)):
        limited = seed == 4  # a random model would fill its one string for ever
        answer = post(
            server,
            "/v1/chat/completions",
            **HELLO,
            tools=[{"function": {"name": "endless", "parameters": endless}}] if limited else tools,
            tool_choice="required",
            n=125,
            seed=seed,
            temperature=temperature,
            stop=['"', "{", "f"],  # they end texts, not calls
            max_tokens=100 if limited else 300,
        )
        for choice in answer.json()["choices"]:
            assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None), choice
            [call] = choice["message"]["tool_calls"]
            assert isinstance(json.loads(call["function"]["arguments"]), dict)
            called[call["function"]["name"]] += 1
    assert called.total() == 1000
    assert called.keys() == {"endless", *(f"f{index}" for index in range(len(tools)))}


def test_of_a_text_that_looks_like_a_call_nothing_is_lost_where_none_may_be_made(server):
    marks = [TOKENIZER.special_tokens[name] for name in ("<tool_call>", "</tool_call>")]
    likely = NEVER | dict.fromkeys(map(str, [*marks, *b'{}"\n ']), 6.0)
    prompt = post(server, "/tokenize", model="tiny", messages=HELLO["messages"]).json()["ids"]
    fields = {"model": "tiny", "n": 64, "seed": 3, "max_tokens": 40, "logit_bias": likely}
    texts = [
        choice["text"]
        for choice in post(server, "/v1/completions", prompt=prompt, **fields).json()["choices"]
    ]
    assert any("<tool_call>" in text and "</tool_call>" in text for text in texts)
    chat = {"messages": HELLO["messages"], "tools": TOOLS, "tool_choice": "none", **fields}
    choices = post(server, "/v1/chat/completions", **chat).json()["choices"]
    assert [choice["message"]["content"] for choice in choices] == texts
    streamed = [""] * 64
    for line in post(server, "/v1/chat/completions", **chat, stream=True).text.split("\n\n")[:-2]:
        [choice] = json.loads(line.removeprefix("data: "))["choices"]
        streamed[choice["index"]] += choice["delta"].get("content", "")
    assert streamed == texts


def test_models_are_listed_and_found_by_names_with_slashes(client):
    assert [model.id for model in client.models.list()] == ["tiny", "tiny/sft"]
    assert client.models.retrieve("tiny/sft").context_length == 2048
    with pytest.raises(openai.NotFoundError, match="there are: tiny, tiny/sft"):
        client.models.retrieve("other")


def test_embeddings_are_of_length_one_and_equal_in_both_encodings(client, server):
    texts = ["the cat", "the dog"]
    # asks for base64
    result = [np.array(row.embedding) for row in client.embeddings.create(model="tiny", input=texts).data]
    floats = post(server, "/v1/embeddings", model="tiny", input=texts, encoding_format="float").json()
    assert np.allclose(result, [row["embedding"] for row in floats["data"]], atol=1e-6)
    assert np.linalg.norm(result, axis=1) == pytest.approx(1.0, abs=1e-5)
    raw = post(server, "/v1/embeddings", model="tiny", input=[[1, 2], [3]], encoding_format="base64").json()
    assert len(base64.b64decode(raw["data"][1]["embedding"])) == 4 * 32
    assert raw["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_an_error_reaches_the_client_as_its_own_kind(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="other", messages=HELLO["messages"])
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=HELLO["messages"], temperature=9)
    assert caught.value.param == "temperature"


def test_a_prompt_of_each_form_is_continued(client):
    ids = TOKENIZER.encode("the end")
    request = {"model": "tiny", "max_tokens": 8, "temperature": 0, "logit_bias": NEVER}
    text = client.completions.create(**request, prompt="the end").choices[0].text
    both = client.completions.create(**request, prompt=["the end", "x"], n=2, seed=1)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in both.choices[:2]] == [text, text]
    assert client.completions.create(**request, prompt=ids).choices[0].text == text
    assert client.completions.create(**request, prompt=[ids, [1]]).choices[0].text == text
    document = client.completions.create(**request, prompt=[TOKENIZER.eot, *ids]).choices[0].text
    for begun in (
        {"prompt": "<|endoftext|>the end"},
        {"prompt": "the end", "extra_body": {"new_document": True}},
    ):
        assert client.completions.create(**request, **begun).choices[0].text == document
    streamed = ["", "", "", ""]
    for chunk in client.completions.create(
        **request, prompt=["the end", "x"], n=2, seed=1, stream=True, echo=True
    ):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    prompts = ["the end", "the end", "x", "x"]
    assert streamed == [prompt + choice.text for prompt, choice in zip(prompts, both.choices, strict=True)]


def as_the_harness_reads(answer: dict, lengths: list[int]) -> list[tuple[float, bool]]:
    """Log-likelihood, and whether it is the greedy continuation (lm-evaluation-harness,
    `LocalCompletionsAPI.parse_logprobs`).
    """
    result = []
    for choice, length in zip(
        sorted(answer["choices"], key=lambda choice: choice["index"]), lengths, strict=True
    ):
        logprobs = choice["logprobs"]["token_logprobs"][length:-1]
        tops = choice["logprobs"]["top_logprobs"][length:-1]
        result.append(
            (sum(logprobs), all(one == max(top.values()) for one, top in zip(logprobs, tops, strict=True)))
        )
    return result


@torch.no_grad()
@pytest.mark.parametrize("bias", [{}, {str(TOKENIZER.eot): 100.0}])
def test_the_harness_reads_the_models_log_likelihoods(server, bias):
    begun = [TOKENIZER.eot, *TOKENIZER.encode("the ")]
    greedy = int(MODEL(torch.tensor([begun]))[0, -1].argmax())
    prompts, lengths = [[*begun, greedy], [*begun, 65, 66, 67], [5, 6]], [len(begun), len(begun), 1]
    request = {
        "model": "tiny",
        "prompt": prompts,
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 1,
        "echo": True,
        "seed": 1234,
    }
    result = as_the_harness_reads(post(server, "/v1/completions", **request, logit_bias=bias).json(), lengths)
    for prompt, length, (likelihood, is_greedy) in zip(prompts, lengths, result, strict=True):
        p = torch.log_softmax(MODEL(torch.tensor([prompt]))[0], -1)
        rows = range(length - 1, len(prompt) - 1)
        assert likelihood == pytest.approx(sum(float(p[row, prompt[row + 1]]) for row in rows), abs=1e-3)
        assert is_greedy == all(int(p[row].argmax()) == prompt[row + 1] for row in rows)
    assert [is_greedy for _, is_greedy in result][:2] == [True, False]


@torch.no_grad()
def test_a_text_may_be_one_token_longer_than_the_context_when_only_scored(server):
    ids = [index % 200 for index in range(2049)]
    p = torch.log_softmax(MODEL(torch.tensor([ids[:-1]]))[0], -1)
    for max_tokens in (1, 0):
        request = {"model": "tiny", "prompt": ids, "max_tokens": max_tokens, "echo": True, "logprobs": 1}
        answer = post(server, "/v1/completions", **request).json()
        [choice] = answer["choices"]
        logprobs = choice["logprobs"]["token_logprobs"]
        assert (len(logprobs), choice["finish_reason"]) == (2049 + max_tokens, "length")
        assert logprobs[2048] == pytest.approx(float(p[2047, ids[2048]]), abs=1e-3)
        assert answer["usage"]["completion_tokens"] == 0


def test_texts_and_their_ids_score_alike_and_as_transformers_reads_the_folder(server, tmp_path):
    ChatRenderer(TOKENIZER).save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ("the end", "<|endoftext|>the end<|im_end|> <|im_start", " the ", "é<tool_call>"):
        request = {"model": "tiny", "max_tokens": 1, "echo": True, "logprobs": 1, "temperature": 0}
        by_text, by_ids = (
            post(server, "/v1/completions", **request, prompt=prompt).json()["choices"][0]
            for prompt in (text, theirs(text)["input_ids"])
        )
        assert by_text == by_ids
    answer = post(server, "/v1/completions", model="tiny", prompt="", max_tokens=1).json()
    assert answer["usage"]["prompt_tokens"] == 1  # the separator of documents


@given(st.text(min_size=1, max_size=12).filter(lambda text: text.isprintable()))
@examples(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_offsets_of_an_echoed_text_lead_to_its_tokens(server, text):
    request = {"model": "tiny", "prompt": text, "max_tokens": 0, "logprobs": 0, "echo": True}
    [choice] = post(server, "/v1/completions", **request).json()["choices"]
    assert choice["text"] == text
    result = choice["logprobs"]
    assert len(result["tokens"]) == len(TOKENIZER.encode(text)) == len(result["text_offset"])
    for token, offset in zip(result["tokens"], result["text_offset"], strict=True):
        assert "�" in token or text[offset:].startswith(token)


def test_what_would_be_silently_wrong_is_refused(server):
    prompt = {"path": "/v1/completions", "model": "tiny", "prompt": "x"}
    assert "left to right" in refused(server, 400, "suffix", **prompt, suffix="y")
    refused(server, 400, "best_of", **prompt, best_of=2)
    refused(server, 400, "max_tokens", **prompt, max_tokens=0)
    refused(server, 400, "logprobs", **prompt, logprobs=101)
    refused(server, 400, "prompt", path="/v1/completions", model="tiny", prompt=["x", 1])
    refused(server, 400, "prompt", path="/v1/completions", model="tiny", prompt=[10**6])
    refused(server, 400, "prompt", path="/v1/completions", model="tiny", prompt=[[]])
    refused(server, 400, "guided_regex", **HELLO, guided_regex="a+")
    refused(server, 400, "grammar", **HELLO, grammar="root ::= 'a'")
    refused(server, 400, "max_tokens", **HELLO, max_tokens=0)
    refused(server, 400, "top_logprobs", **HELLO, top_logprobs=3)
    refused(server, 400, "tool_choice", **HELLO, tool_choice="required")
    refused(server, 400, "response_format.type", **HELLO, response_format={"type": "yaml"})
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}}
    assert "schema" in refused(server, 400, "response_format", **HELLO, response_format=schema)
    refused(server, 400, "response_format.json_schema", **HELLO, response_format={"type": "json_schema"})
    refused(server, 400, "trace", **HELLO | {"model": "tiny/sft"}, trace=True)
    image = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    refused(
        server, 400, "messages[0].content[1]", model="tiny", messages=[{"role": "user", "content": image}]
    )


def test_lists_have_bounds_and_what_is_beyond_them_is_named(server):
    def beyond(param: str, path: str = "/v1/chat/completions", **body: object) -> None:
        message = refused(
            server, 400, param, path=path, **(HELLO if "chat" in path else {"model": "tiny"}) | body
        )
        assert any(digit.isdigit() for digit in message), message

    user, call = HELLO["messages"][0], {"id": "1", "function": {"name": "f"}}
    beyond("stop", stop=["x"] * 17)
    beyond("stop", stop="x" * 1001)
    beyond("tools", tools=[TOOLS[1]] * 129)
    beyond("messages", messages=[user] * 2001)
    beyond("messages[0].tool_calls", messages=[{"role": "assistant", "tool_calls": [call] * 129}, user])
    beyond("logit_bias", logit_bias={str(token): 0 for token in range(1001)})
    named = [{"type": "function", "function": {"name": "f"}}] * 129
    choice = {"type": "allowed_tools", "allowed_tools": {"tools": named}}
    beyond("tool_choice.allowed_tools.tools", tool_choice=choice)
    beyond("n", n=129)
    beyond("prompt", "/v1/completions", prompt=["x"] * 2049)
    beyond("prompt", "/v1/completions", prompt=["x"] * 257)  # may wait in the queue
    beyond("n", "/v1/completions", prompt=["x"] * 128, n=17)
    beyond("input", "/v1/embeddings", input=["x"] * 2049)
    many = post(server, "/v1/embeddings", model="tiny", input=[f"{number}" for number in range(40)]).json()
    one = post(server, "/v1/embeddings", model="tiny", input="39").json()
    assert len(many["data"]) == 40
    assert np.allclose(many["data"][39]["embedding"], one["data"][0]["embedding"], atol=1e-6)


def test_the_ids_of_tokens_come_on_request(client, server):
    ids = post(server, "/tokenize", model="tiny", messages=HELLO["messages"]).json()["ids"]
    more = {"model": "tiny", "n": 2, "seed": 1, "max_tokens": 9, "logit_bias": NEVER}
    more["extra_body"] = {"return_token_ids": True}
    chat = client.chat.completions.create(messages=HELLO["messages"], **more)
    assert chat.prompt_token_ids == ids
    spelled = [
        post(server, "/detokenize", model="tiny", ids=choice.token_ids).json()["text"]
        for choice in chat.choices
    ]
    assert spelled == [choice.message.content for choice in chat.choices]
    assert [len(choice.token_ids) for choice in chat.choices] == [9, 9]
    text = client.completions.create(prompt=ids, **more)
    assert [(choice.prompt_token_ids, choice.token_ids) for choice in text.choices] == [
        (ids, choice.token_ids) for choice in chat.choices
    ]
    streamed: list[list[int]] = [[], []]
    chunks = list(client.chat.completions.create(messages=HELLO["messages"], **more, stream=True))
    assert chunks[0].prompt_token_ids == ids
    for chunk in chunks:
        streamed[chunk.choices[0].index] += getattr(chunk.choices[0], "token_ids", [])
    parts = [part.choices[0] for part in client.completions.create(prompt=ids, **more, stream=True)]
    assert sum(hasattr(part, "prompt_token_ids") for part in parts) == 2
    of_completion: list[list[int]] = [[], []]
    for part in parts:
        of_completion[part.index] += part.token_ids
    assert streamed == of_completion == [choice.token_ids for choice in chat.choices]
    assert "token_ids" not in post(server, "/v1/chat/completions", **HELLO, max_tokens=1).text


def test_fields_that_are_not_read_are_named(server):
    fields = {
        "reasoning_effort": "low",
        "functions": [],
        "modalities": ["text", "audio"],
        "think": False,
        "guided_json": {},
        "stream_options": {"continuous_usage_stats": True},
        "tools": [
            {"type": "custom", "custom": {"name": "f"}},
            {"type": "function", "cache": 1, "function": TIME},
        ],
    }
    answer = post(server, "/v1/chat/completions", **HELLO, max_tokens=1, **fields)
    assert answer.status_code == 200
    assert answer.headers["x-crawltalk-ignored"] == (
        "reasoning_effort, functions, modalities, think, guided_json, stream_options.continuous_usage_stats, "
        "tools.custom, tools.cache"
    )
    assert "x-crawltalk-ignored" not in post(server, "/v1/chat/completions", **HELLO, max_tokens=1).headers


unknown_names = st.text(max_size=20).filter(lambda name: name not in ChatRequest.__struct_fields__)


@given(st.dictionaries(unknown_names, st.none() | st.booleans() | st.dictionaries(st.text(), st.text())))
@examples(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_field_of_any_name_is_ignored(server, fields):
    answer = post(server, "/v1/chat/completions", **fields | HELLO | {"max_tokens": 1})
    assert answer.status_code == 200, answer.text
    assert ("x-crawltalk-ignored" in answer.headers) == bool(fields)


def test_numbers_are_taken_as_other_servers_take_them(server):
    asked = HELLO | {"temperature": 0, "logit_bias": NEVER}
    texts = {
        post(server, "/v1/chat/completions", **asked | more).json()["choices"][0]["message"]["content"]
        for more in (
            {"max_tokens": 3},
            {"max_tokens": 3.0},
            {"max_tokens": "3"},
            {"max_tokens": 9, "max_completion_tokens": 3},
            {"max_tokens": 3, "temperature": "0", "stop": ["", ""]},
            {"max_tokens": 3, "temperature": 1, "top_p": 0, "stop": ""},
        )
    }
    assert len(texts) == 1
    everything = post(server, "/v1/chat/completions", **HELLO, max_tokens=-1, logit_bias=NEVER).json()
    assert everything["usage"]["total_tokens"] == 2048
    asked = {"model": "tiny", "prompt": "a", "max_tokens": 1, "logit_bias": NEVER}
    flag = post(server, "/v1/completions", **asked, logprobs=True).json()
    assert len(flag["choices"][0]["logprobs"]["top_logprobs"][0]) >= 1


def test_earlier_turns_come_in_each_form_that_clients_know(server):
    function = {"name": "time", "arguments": '{"zone": "UTC"}'}
    spelled = [{"id": "1", "type": "function", "function": function}]
    called = {"role": "assistant", "content": None, "tool_calls": spelled}
    result = {"role": "tool", "tool_call_id": "1", "content": "noon"}

    def ids(*messages: dict) -> list[int]:
        answer = post(server, "/tokenize", model="tiny", messages=[*HELLO["messages"], *messages])
        assert answer.status_code == 200, answer.text
        return answer.json()["ids"]

    usual = ids(called, result)
    as_object = [{"function": {"name": "time", "arguments": {"zone": "UTC"}}}]
    assert ids({"role": "assistant", "tool_calls": as_object}, result | {"tool_call_id": None}) == usual
    older = {"role": "assistant", "content": "", "function_call": function}
    assert ids(older, {"role": "function", "name": "time", "content": "noon"}) == usual
    parts = [{"type": "text", "text": "no", "cache_control": {"type": "ephemeral"}}, "on"]
    assert ids(called, result | {"content": parts}) == usual
    assert ids(called, result | {"content": [{"type": "output_text", "text": "noon"}]}) == usual
    assert ids(called, result | {"content": None}) == ids(called, result | {"content": ""})
    assert ids({"role": "assistant", "content": "Hi", "tool_calls": []}) == ids(
        {"role": "assistant", "content": [{"type": "text", "text": "Hi"}], "tool_calls": None}
    )


def test_what_clients_send_besides_is_taken(server):
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    messages = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": parts, "name": "Ann"},
    ]
    messages.insert(
        1, {"role": "assistant", "content": "Hi", "refusal": None, "audio": None, "annotations": []}
    )
    more = {
        "user": "ann",
        "store": False,
        "metadata": {},
        "stop": None,
        "stream": False,
        "stream_options": None,
        "n": None,
    }
    assert (
        post(
            server, "/v1/chat/completions", model="tiny", messages=messages, max_tokens=2, **more
        ).status_code
        == 200
    )


def test_a_choice_says_where_its_text_occurs_in_the_training_data(server):
    request = HELLO | {"max_tokens": 6, "logit_bias": NEVER, "trace": True}
    [choice] = post(server, "/v1/chat/completions", **request).json()["choices"]
    assert choice["trace"] == [{"characters": len(choice["message"]["content"]), "tokens": 6}]
    text = post(server, "/v1/chat/completions", **request, stream=True).text
    last = json.loads(text.split("\n\n")[-3].removeprefix("data: "))
    assert last["choices"][0]["trace"][0]["tokens"] == 6
    [choice] = post(
        server, "/v1/completions", model="tiny", prompt="x", max_tokens=4, trace=True, logit_bias=NEVER
    ).json()["choices"]
    assert choice["trace"][0]["tokens"] == 4


def test_messages_that_do_not_fit_are_left_out_and_counted(server):
    messages = [{"role": "user", "content": "x" * 400}] * 6
    for max_tokens, dropped in ((600, 3), (1, 1)):  # a short reply needs no quarter of the context
        asked = {"model": "tiny", "messages": messages, "max_tokens": max_tokens}
        assert post(server, "/v1/chat/completions", **asked).json()["dropped_messages"] == dropped


def test_what_is_too_long_has_openais_code_and_says_what_takes_the_room(server):
    def overflow(param: str, path: str = "/v1/chat/completions", **body: object) -> str:
        error = post(server, path, model="tiny", **body).json()["error"]
        assert (error["param"], error["code"]) == (param, "context_length_exceeded"), error
        return error["message"]

    long, hello = "x" * 4000, HELLO["messages"]
    message = overflow("messages", messages=[{"role": "user", "content": long}])
    assert message.startswith("This model's maximum context length is 2048 tokens, of which 512 are left")
    assert message.endswith("make it shorter (context_length_exceeded)")
    assert "system message: 40" in overflow(
        "messages", messages=[{"role": "system", "content": long}, *hello]
    )
    assert "system message: 40" in overflow("messages", messages=[{"role": "system", "content": long}])
    tool = {"type": "function", "function": {"name": "f", "description": long}}
    assert "(tools: 41" in overflow("messages", messages=hello, tools=[tool])
    assert "offer fewer tools" in overflow("messages", messages=hello, tools=[tool], stream=True)
    assert "the prompt has 4000" in overflow("prompt", "/v1/completions", prompt=long)
    overflow("prompt", "/v1/completions", prompt=[1] * 2050, echo=True, max_tokens=0, logprobs=1)
    overflow("input", "/v1/embeddings", input=long)


def test_messages_and_calls_of_openais_api_become_messages_and_calls():
    call = ToolCall(id="1", function=Call(name="time", arguments='{"zone":"UTC"}'))
    turns = [SystemMessage(content="Be kind."), UserMessage(content="When?")]
    turns += [AssistantMessage(tool_calls=[call]), ToolMessage(content="noon", tool_call_id="1")]
    assert conversation(turns) == [
        Message("system", "Be kind."),
        Message("user", "When?"),
        Message("assistant", "", tool_calls=[ChatToolCall(FunctionCall("time", '{"zone":"UTC"}'), "1")]),
        Message("tool", "noon", tool_call_id="1"),
    ]


def test_a_choice_of_tools_says_what_is_offered_and_what_must_be_called():
    tools = [Tool(function=Function(name=name)) for name in ("time", "space")]
    named = NamedTool(function=ToolName("space"))

    def of(**settings: object) -> Tools:
        return Tools.of(ChatRequest(model="", messages=[], tools=tools, **settings))

    assert ([tool.name for tool in of().offered], of().must_call, of().schema()) == (
        ["time", "space"],
        False,
        None,
    )
    assert of(tool_choice="none").offered == []
    assert of(tool_choice="required").must_call
    assert of(tool_choice="any").must_call
    allowed = AllowedTools(mode="required", tools=[ToolReference(function=ToolName("space"))])
    some = of(tool_choice=AllowedToolsChoice(allowed_tools=allowed))
    assert ([tool.name for tool in some.offered], some.must_call) == (["space"], True)
    assert [tool.name for tool in of(tool_choice=named).offered] == ["space"]
    assert of(parallel_tool_calls=False).max_calls == 1


def test_langchain_chats_streams_and_calls_tools(server):
    @tool
    def weather(city: str) -> str:
        """The weather of a city."""
        return city

    model = langchain_openai.ChatOpenAI(
        model="tiny",
        base_url=f"{server.url}/v1",
        api_key="-",
        max_retries=0,
        max_tokens=20,
        seed=3,
        temperature=0.5,
    )
    reply = model.invoke([HumanMessage("Hello")])
    assert reply.usage_metadata["output_tokens"] > 0
    assert "".join(chunk.text for chunk in model.stream([HumanMessage("Hello")])) == reply.text
    with pytest.raises(ContextOverflowError):
        model.invoke("x" * 4000)
    more = {"max_tokens": 1500, "logit_bias": NO_BLANKS | {"34": 5.0}}  # and ends its strings
    [call] = model.bind_tools([weather], tool_choice="weather").bind(**more).invoke("Hello").tool_calls
    assert call["name"] == "weather"
    assert isinstance(call["args"]["city"], str)


def test_the_program_llm_talks(server, tmp_path):
    models = f"- model_id: crawled\n  model_name: tiny\n  api_base: {server.url}/v1\n"
    (tmp_path / "extra-openai-models.yaml").write_text(models)
    command = [
        sys.executable,
        "-m",
        "llm",
        "-m",
        "crawled",
        "--key",
        "-",
        "Hello",
        "-o",
        "max_tokens",
        "9",
        "-o",
        "seed",
        "1",
    ]
    done = subprocess.run(
        command, env={"LLM_USER_PATH": str(tmp_path)}, capture_output=True, check=False, timeout=60
    )
    request = HELLO | {"max_tokens": 9, "seed": 1}
    expected = post(server, "/v1/chat/completions", **request).json()["choices"][0]["message"]["content"]
    assert done.stdout.decode().rstrip("\n") == expected.rstrip("\n"), done.stderr


def test_random_requests_find_no_error_of_ours(server):
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) == 16, [operation.label for operation in operations]
    statuses = {operation.label: set[int]() for operation in operations}

    def ask_often(operation: schemathesis.schemas.APIOperation) -> None:
        @given(operation.as_strategy())
        @examples(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
        def ask(case: schemathesis.Case) -> None:
            if isinstance(case.body, dict):
                for name, value in {
                    "model": "tiny",
                    "max_tokens": 4,
                    "max_completion_tokens": 4,
                    "max_output_tokens": 4,
                    "n": 2,
                }.items():
                    if case.body.get(name) is not None:
                        case.body[name] = value
            answer = case.call(timeout=30)
            assert answer.status_code < 500, answer.text
            statuses[operation.label].add(answer.status_code)
            case.validate_response(answer, checks=[schemathesis.checks.response_schema_conformance])

        ask()

    for operation in operations:
        ask_often(operation)
    assert all(200 in result for label, result in statuses.items() if "{" not in label), statuses


def test_bad_bodies_are_told_apart(server):
    def send(body: bytes) -> tuple[int, str]:
        answer = httpx.post(f"{server.url}/v1/chat/completions", content=body, timeout=60)
        return answer.status_code, answer.json()["error"]["code"]

    for body in (b"", b"{", b'{"model": "\xff"}', b'{"model": "\\ud800"}'):
        assert send(body) == (400, "invalid_json"), body[:20]
    for body in (
        b"[]",
        b"3",
        b"{}",
        b'{"model": 3, "messages": []}',
        b'{"model": "tiny", "messages": [{"role": "user"}]}',
    ):
        assert send(body) == (400, "invalid_value"), body
    assert send(json.dumps(HELLO | {"messages": [{"role": "user", "content": "x" * 10**7}]}).encode()) == (
        413,
        "body_too_large",
    )
    assert send(b'{"user":' + b"[" * 100_000) == (400, None)
    deep: dict = {}
    for _ in range(300):
        deep = {"properties": {"x": deep}}
    refused(
        server,
        400,
        None,
        **HELLO,
        tools=[{"type": "function", "function": {"name": "f", "parameters": deep}}],
        tool_choice="required",
    )
    refused(server, 400, "max_tokens", **HELLO, max_tokens=-2)
    refused(server, 400, "n", **HELLO, n=10**9)
    refused(server, 400, "messages[0].content", model="tiny", messages=[{"role": "user", "content": 3}])
    refused(server, 404, "model", **HELLO | {"model": "other"})
    refused(server, 400, "logit_bias", **HELLO, logit_bias={"99999": 1})
    packed = httpx.post(f"{server.url}/tokenize", content=b"x", headers={"content-encoding": "gzip"})
    assert (packed.status_code, "uncompressed" in packed.text) == (415, True)
    marked = httpx.post(f"{server.url}/tokenize", content=b'\xef\xbb\xbf{"model": "tiny", "text": "a"}')
    assert marked.json()["count"] == 1


def test_unknown_routes_and_methods_are_errors_of_openais_form(server):
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/health", 405),
    ):
        answer = httpx.request(method, server.url + path)
        assert (answer.status_code, set(answer.json())) == (status, {"error"})
    assert "there are: POST /v1/chat/completions" in httpx.post(f"{server.url}/api/generate", json={}).text
    assert "takes POST, not GET" in httpx.get(f"{server.url}/v1/chat/completions").text


def test_base_urls_with_and_without_a_version_and_slashes_anywhere_lead_to_the_same(server):
    for path in ("/v1/models", "/v1/models/", "/models", "//v1//models", "/v1/v1/models"):
        assert len(httpx.get(server.url + path).json()["data"]) == 2, path
    for path in ("/v1/models/tiny/sft", "/models/tiny%2Fsft", "/v1/models/tiny/sft/"):
        assert httpx.get(server.url + path).json()["id"] == "tiny/sft", path
    for path in ("/v1/chat/completions/", "/chat/completions", "/v1/v1/chat/completions"):
        assert post(server, path, **HELLO, max_tokens=1).status_code == 200, path
    assert httpx.head(f"{server.url}/v1/models").status_code == 200


def test_pages_of_other_origins_and_other_names_of_the_machine_by_a_setting():
    origins = ("http://localhost:*", "chrome-extension://*", "https://app.example", "null")
    settings = Settings(origins=origins, hosts=("127.0.0.1", "host.docker.internal"), keys=("secret",))
    preflight = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    key = {"authorization": "Bearer secret"}
    with serving(settings) as server, httpx.Client(base_url=server.url) as client:
        for origin, status in (
            ("http://localhost:5173", 204),
            ("chrome-extension://abcdef", 204),
            ("https://app.example", 204),
            ("null", 204),
            ("http://localhost.evil.example:80", 403),
            ("http://localhost:80.evil.example", 403),
            ("https://evil.example", 403),
            ("https://app.example.evil", 403),
            ("https://appxexample", 403),
        ):
            asked = {"origin": origin}
            answer = client.options("/v1/chat/completions", headers=asked | preflight)
            assert answer.status_code == status, origin
            if status == 403:
                assert f"--origin {origin}" in answer.json()["error"]["message"]
                assert client.get("/v1/models", headers=asked | key).status_code == 403
                continue
            assert answer.headers["access-control-allow-origin"] == origin
            assert answer.headers["access-control-allow-headers"] == "authorization"
            answer = client.get("/v1/models", headers=asked | key)
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)
            refusal = client.get("/v1/models", headers=asked)  # a page may read why it was refused
            assert (refusal.status_code, refusal.headers["access-control-allow-origin"]) == (401, origin)
        assert client.get("/health", headers={"host": "host.docker.internal:8000"}).status_code == 200
        assert "--host-name" in client.get("/health", headers={"host": "evil.example"}).text
    with serving(Settings(origins=("*",))) as server:
        answer = httpx.get(f"{server.url}/v1/models", headers={"origin": "https://any.example"})
        assert answer.headers["access-control-allow-origin"] == "*"


def test_a_reply_has_the_servers_default_of_tokens_unless_its_request_says_more():
    with serving(Settings(max_tokens=5)) as server:
        for asked, count in ((None, 5), (9, 9), (3, 3), (-1, 2000)):
            usage = post(server, "/v1/chat/completions", **HELLO, max_tokens=asked, logit_bias=NEVER).json()[
                "usage"
            ]
            assert usage["completion_tokens"] == count or (count == 2000 < usage["completion_tokens"])


def test_every_answer_has_an_id_and_strict_headers(server):
    headers = httpx.get(f"{server.url}/health").headers
    assert len(headers["x-request-id"]) == 32
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert "access-control-allow-origin" not in headers


def test_other_hosts_and_pages_of_other_sites_are_turned_away(server):
    port = server.url.rsplit(":", 1)[1]
    for headers, status in (
        ({"host": f"evil.example:{port}"}, 403),
        ({"host": "["}, 403),
        ({"host": "127.0.0.1"}, 200),
        ({"origin": "http://["}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": server.url}, 200),
    ):
        assert httpx.get(f"{server.url}/v1/models", headers=headers).status_code == status, headers


def test_tokens_there_and_back(server):
    result = post(server, "/tokenize", model="tiny", text="the é").json()
    assert result == {"ids": TOKENIZER.encode("the é"), "pieces": ["the", " ", "�", "�"], "count": 4}
    assert post(server, "/detokenize", model="tiny", ids=result["ids"]).json() == {"text": "the é"}
    chat = post(server, "/tokenize", model="tiny", messages=HELLO["messages"]).json()
    assert chat["ids"] == ChatRenderer(TOKENIZER).encode_chat(
        [Message("user", "Hello")], add_generation_prompt=True
    )
    refused(server, 400, "text", path="/tokenize", model="tiny")


def test_metrics_count_requests_and_tokens(server):
    def figure(name: str) -> float:
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(name)), 0.0)

    names = [
        'crawltalk_requests_total{route="/v1/chat/completions",status="200"}',
        'crawltalk_generated_tokens_total{model="tiny"}',
    ]
    names += [
        'crawltalk_time_to_first_token_seconds_count{model="tiny"}',
        'crawltalk_time_per_token_seconds_count{model="tiny"}',
    ]
    for path, body in (
        ("/v1/chat/completions", HELLO | {"max_tokens": 300}),
        ("/v1/responses", {"model": "tiny", "input": "Hello", "max_output_tokens": 300}),
        ("/v1/messages", HELLO | {"max_tokens": 300}),
    ):
        names[0] = f'crawltalk_requests_total{{route="{path}",status="200"}}'
        before = [figure(name) for name in names]
        post(server, path, **body, logit_bias=NEVER)
        assert [figure(name) - was for name, was in zip(names, before, strict=True)] == [1, 300, 1, 1]
    assert figure("crawltalk_blocks{") > 0


def test_a_key_must_come_with_every_request_but_for_the_page_and_health():
    with serving(Settings(keys=("first", "second"))) as server:
        for key, status in ((None, 401), ("other", 401), ("first", 200), ("second", 200)):
            headers = {"authorization": f"Bearer {key}"} if key else {}
            assert httpx.get(f"{server.url}/v1/models", headers=headers).status_code == status
        assert httpx.get(f"{server.url}/metrics").status_code == 401
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_too_many_requests_a_minute_are_told_when_to_come_back():
    with serving(Settings(rate=2)) as server:
        answers = [post(server, "/tokenize", model="tiny", text="x") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[2].json()["error"]["code"] == "rate_limit_exceeded"
        assert 1 <= int(answers[2].headers["retry-after"]) <= 30


def test_a_bucket_fills_with_time():
    limiter = RateLimiter(6000)
    assert [limiter.take("a") > 0 for _ in range(6001)].count(True) <= 1
    assert limiter.take("b") == 0
    time.sleep(0.05)
    assert limiter.take("a") == 0


def test_the_log_has_a_line_for_each_request_and_prompts_only_if_asked(caplog):
    for log_prompts in (False, True):
        caplog.clear()
        with (
            caplog.at_level(logging.INFO, "crawltalk.serve"),  # until the server has ended: it logs last
            serving(Settings(keys=("secret",), log_prompts=log_prompts)) as server,
        ):
            request = {
                "json": HELLO | {"max_tokens": 3, "logit_bias": NEVER},
                "headers": {"authorization": "Bearer secret"},
            }
            answer = httpx.post(f"{server.url}/v1/chat/completions", **request)
        line = json.loads(caplog.records[-1].message)
        assert line["id"] == answer.headers["x-request-id"]
        assert (line["route"], line["status"], line["model"]) == ("/v1/chat/completions", 200, "tiny")
        assert (line["completion_tokens"], len(line["client"])) == (3, 8)
        assert ("Hello" in caplog.text) == log_prompts
        assert "secret" not in caplog.text


def test_an_error_of_ours_is_answered_with_the_id_of_its_line_in_the_log(caplog):
    def broken(text: str, tokens: list[int]) -> list[dict]:
        raise ZeroDivisionError

    with caplog.at_level(logging.INFO, "crawltalk.serve"), serving(tracers={"tiny": broken}) as server:
        answer = post(server, "/v1/chat/completions", **HELLO, max_tokens=2, trace=True)
        streamed = post(server, "/v1/chat/completions", **HELLO, max_tokens=2, trace=True, stream=True)
        assert post(server, "/v1/chat/completions", **HELLO, max_tokens=2).status_code == 200
    lines = [json.loads(record.message) for record in caplog.records]
    assert (answer.status_code, lines[0]["id"] in answer.json()["error"]["message"]) == (500, True)
    assert (
        lines[1]["id"]
        in json.loads(streamed.text.split("\n\n")[-2].removeprefix("data: "))["error"]["message"]
    )
    assert all("ZeroDivisionError" in line["traceback"] for line in lines[:2])


def test_a_request_that_takes_too_long_is_ended():
    with serving(Settings(timeout=0.05)) as server:
        request = HELLO | {"max_tokens": 1900, "logit_bias": NEVER, "n": 128}
        answer = post(server, "/v1/chat/completions", **request)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        server.until("running", 0)
        events = post(server, "/v1/chat/completions", **request, stream=True).text.split("\n\n")
        assert json.loads(events[-2].removeprefix("data: "))["error"]["code"] == "timeout"
        server.until("running", 0)


def test_a_server_that_ends_finishes_what_runs_and_takes_nothing_new():
    with serving(grace=20.0) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        client.get("/health")
        answers: list[httpx.Response] = []
        request = HELLO | {"max_tokens": 1000, "logit_bias": NEVER}
        thread = threading.Thread(
            target=lambda: answers.append(post(server, "/v1/chat/completions", **request))
        )
        thread.start()
        server.until("running", 1)
        server.server.handle_exit(15, None)
        assert client.get("/health").status_code == 503
        refusal = client.post("/v1/chat/completions", json=HELLO)
        assert (refusal.status_code, refusal.json()["error"]["code"]) == (503, "shutting_down")
        thread.join()
        assert answers[0].json()["usage"]["completion_tokens"] == 1000


def test_what_runs_after_the_grace_is_told_so():
    with serving(grace=0.1) as server:
        request = HELLO | {"max_tokens": 1900, "logit_bias": NEVER, "n": 128, "stream": True}
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=request, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            server.server.handle_exit(15, None)
            last = [line for line in lines if line][-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "shutting_down"


def test_a_server_for_others_needs_a_key(capsys):
    from crawltalk.cli import main

    assert main(["serve", "--host", "0.0.0.0"]) == 2
    assert "--api-key" in capsys.readouterr().err


def test_a_port_that_is_taken_is_the_users_to_change():
    with (
        listen("127.0.0.1", 0) as first,
        pytest.raises(UserError, match="--port"),
        listen(*first.getsockname()),
    ):
        pass


@pytest.mark.slow
def test_a_run_is_served_with_all_its_models_until_a_signal(nano: Path):
    run, folders = models_of(str(nano))
    assert run is not None
    assert folders == {"nano": nano / "sft", "nano/pretrain": nano / "pretrain", "nano/sft": nano / "sft"}
    assert models_of(str(nano / "sft")) == (None, {"sft": nano / "sft"})
    command = [sys.executable, "-m", "crawltalk", "serve", str(nano), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip()
        with openai.OpenAI(base_url=f"{url}v1", api_key="-") as client:
            reply = client.chat.completions.create(model="nano", messages=HELLO["messages"], max_tokens=5)
        process.terminate()
        assert process.wait(30) == 0
        assert reply.usage.completion_tokens <= 5
        assert httpx.URL(url).port
