"""The smaller routes: models, embeddings, tokens, health, metrics, the description."""

import asyncio
import base64
from typing import TYPE_CHECKING

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from crawltalk.serve.api.chat import conversation
from crawltalk.serve.api.completions import prompts_of, to_ids
from crawltalk.serve.api.errors import ApiError, bad_request, shutting_down
from crawltalk.serve.api.generation import json_response
from crawltalk.serve.api.protocol import (
    DetokenizeAnswer,
    DetokenizeRequest,
    Embedding,
    EmbeddingList,
    EmbeddingRequest,
    EmbeddingUsage,
    Health,
    ModelCard,
    ModelList,
    TokenizeAnswer,
    TokenizeRequest,
)

if TYPE_CHECKING:
    from crawltalk.serve.app import Serving


async def models(serving: "Serving", request: Request) -> Response:
    """All models that are served."""
    return json_response(ModelList(data=[_card(serving, name) for name in serving.models]))


async def model(serving: "Serving", request: Request) -> Response:
    """One of them."""
    return json_response(_card(serving, request.path_params["model"]))


def _card(serving: "Serving", name: str) -> ModelCard:
    engine = serving.service(name).engine
    return ModelCard(
        id=name,
        created=serving.started,
        context_length=engine.context,
        chat=engine.chat.format is not None,
        trace=name in serving.traces,
    )


async def embeddings(serving: "Serving", request: Request, asked: EmbeddingRequest) -> Response:
    """Texts as points: the mean of the model's final states over a text's tokens, at length 1.

    Models here learn to continue texts, not to tell them apart; what is near is alike in wording more than in
    meaning.
    """
    service = serving.service(asked.model)
    texts = prompts_of(asked.input, "input")
    prompts = await asyncio.to_thread(lambda: [to_ids(service.engine, text, "input") for text in texts])
    count = sum(map(len, prompts))
    request.state.line |= {"model": asked.model, "prompt_tokens": count}
    data = [
        Embedding(index=index, embedding=_in_base64(vector) if asked.encoding_format == "base64" else vector)
        for index, vector in enumerate(await service.embed(prompts))
    ]
    return json_response(EmbeddingList(data=data, model=asked.model, usage=EmbeddingUsage(count, count)))


def _in_base64(vector: list[float]) -> str:
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()


async def tokenize(serving: "Serving", request: Request, asked: TokenizeRequest) -> Response:
    """How a text, or a conversation, is cut."""
    tokenizer = serving.service(asked.model).engine.tokenizer
    if (asked.text is None) == (asked.messages is None):
        raise bad_request("give text or messages, one of them", "text")
    if asked.messages is not None:
        turns = conversation(asked.messages)
        chat = serving.service(asked.model).engine.chat
        ids = await asyncio.to_thread(chat.encode_chat, turns, reply=True)
    else:
        ids = await asyncio.to_thread(tokenizer.encode, asked.text or "")
    return json_response(TokenizeAnswer(ids, [tokenizer.decode([index]) for index in ids], len(ids)))


async def detokenize(serving: "Serving", request: Request, asked: DetokenizeRequest) -> Response:
    """The text of tokens."""
    tokenizer = serving.service(asked.model).engine.tokenizer
    text = b"".join(map(tokenizer.word, asked.ids)).decode(errors="replace")
    return json_response(DetokenizeAnswer(text))


async def health(serving: "Serving", request: Request) -> Response:
    """Whether the server takes requests."""
    if serving.draining:
        raise shutting_down()
    if failed := [name for name, service in serving.models.items() if service.failure is not None]:
        raise ApiError(
            503, f"the engine of {failed[0]} has failed: start the server again", code="engine_failed"
        )
    return json_response(Health())


async def metrics(serving: "Serving", request: Request) -> Response:
    """Figures for Prometheus."""
    return Response(serving.metrics.text(), media_type="text/plain; version=0.0.4")


async def description(serving: "Serving", request: Request) -> Response:
    """All of this, as OpenAPI."""
    return json_response(serving.description)
