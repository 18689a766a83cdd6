"""POST /tokenize and POST /detokenize, which OpenAI's API does not have."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from crawltalk.serve.api.chat import conversation
from crawltalk.serve.api.errors import bad_request
from crawltalk.serve.api.protocol import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeRequest,
    TokenizeResponse,
)
from crawltalk.serve.api.sending import json_response
from crawltalk.serve.state import ServerState


async def tokenize(server: ServerState, http_request: Request, request: TokenizeRequest) -> Response:
    """The tokens of a text, or of a conversation."""
    tokenizer = server.service(request.model).engine.tokenizer
    if (request.text is None) == (request.messages is None):
        raise bad_request("give text or messages, one of them", "text")
    if request.messages is not None:
        chat = server.service(request.model).engine.renderer
        turns = conversation(request.messages, chat.places)
        ids = await asyncio.to_thread(chat.encode_chat, turns, add_generation_prompt=True)
    else:
        ids = await asyncio.to_thread(tokenizer.encode, request.text or "")
    return json_response(TokenizeResponse(ids, [tokenizer.decode([index]) for index in ids], len(ids)))


async def detokenize(server: ServerState, http_request: Request, request: DetokenizeRequest) -> Response:
    """The text of tokens."""
    tokenizer = server.service(request.model).engine.tokenizer
    text = b"".join(map(tokenizer.word, request.ids)).decode(errors="replace")
    return json_response(DetokenizeResponse(text))
