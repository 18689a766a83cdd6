"""The HTTP application: OpenAI's and Anthropic's APIs over the models of a run."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from crawltalk.engine.service import Service
from crawltalk.serve.api import (
    chat,
    completions,
    embeddings,
    health,
    messages,
    messages_protocol,
    models,
    openapi,
    protocol,
    responses,
    responses_protocol,
    tokenize,
)
from crawltalk.serve.api.errors import HANDLED, ApiError, as_api_error
from crawltalk.serve.api.openapi import Operation
from crawltalk.serve.http.body import read_body, while_connected
from crawltalk.serve.http.middleware import AccessControl, AccessLog
from crawltalk.serve.http.paths import Paths
from crawltalk.serve.settings import Settings
from crawltalk.serve.state import ServerState, Tracer

OPERATIONS = (
    Operation(
        "POST",
        "/v1/chat/completions",
        chat.chat_completions,
        protocol.ChatCompletion,
        protocol.ChatRequest,
        event=protocol.ChatCompletionChunk,
    ),
    Operation(
        "POST",
        "/v1/completions",
        completions.completions,
        protocol.Completion,
        protocol.CompletionRequest,
        event=protocol.Completion,
    ),
    Operation(
        "POST",
        "/v1/responses",
        responses.create_response,
        responses_protocol.ModelResponse,
        responses_protocol.ResponsesRequest,
        event=responses_protocol.ResponseEvent,
    ),
    Operation(
        "GET", "/v1/responses/{response_id}", responses.retrieve_response, responses_protocol.ModelResponse
    ),
    Operation(
        "DELETE",
        "/v1/responses/{response_id}",
        responses.delete_response,
        responses_protocol.DeletedResponse,
    ),
    Operation(
        "POST",
        "/v1/responses/{response_id}/cancel",
        responses.cancel_response,
        responses_protocol.ModelResponse,
    ),
    Operation(
        "GET",
        "/v1/responses/{response_id}/input_items",
        responses.input_items,
        responses_protocol.InputItems,
    ),
    Operation(
        "POST",
        "/v1/messages",
        messages.create_message,
        messages_protocol.AssistantReply,
        messages_protocol.MessagesRequest,
        event=messages_protocol.MessageEvent,
    ),
    Operation(
        "POST",
        "/v1/messages/count_tokens",
        messages.count_tokens,
        messages_protocol.TokensCount,
        messages_protocol.CountTokensRequest,
    ),
    Operation("GET", "/v1/models", models.models, protocol.ModelList),
    Operation("GET", "/v1/models/{model:path}", models.model, protocol.ModelCard),
    Operation(
        "POST", "/v1/embeddings", embeddings.embeddings, protocol.EmbeddingList, protocol.EmbeddingRequest
    ),
    Operation("POST", "/tokenize", tokenize.tokenize, protocol.TokenizeResponse, protocol.TokenizeRequest),
    Operation(
        "POST", "/detokenize", tokenize.detokenize, protocol.DetokenizeResponse, protocol.DetokenizeRequest
    ),
    Operation("GET", "/health", health.health, protocol.Health),
    Operation("GET", "/metrics", health.metrics, None),
    Operation("GET", "/openapi.json", openapi.description, dict[str, Any]),
)


def make_app(
    models: Mapping[str, Service],
    settings: Settings,
    routes: Sequence[BaseRoute] = (),
    tracers: Mapping[str, Tracer] | None = None,
) -> Starlette:
    """The application. Its lifespan starts the engines and stops them.

    `models`: by the names that clients use; two names may have one engine. `routes`: further ones, such as
    pages. If there are keys, all routes need one but the page (`/`, `/static/`), `/health` and
    `/openapi.json`. `tracers`: of the models whose training data is available. `app.state.server` is the
    `ServerState`.
    """
    server = ServerState(models, settings, tracers or {}, openapi.describe(OPERATIONS))

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        server.start()
        yield
        await server.stop(0)

    app = Starlette(
        routes=[*(_route(server, operation) for operation in OPERATIONS), *routes],
        middleware=[
            Middleware(AccessLog, server=server),
            Middleware(Paths),
            Middleware(AccessControl, server=server),
        ],
        exception_handlers=dict.fromkeys(HANDLED, _error_response),
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # `Paths` has done it, and many clients follow no redirect of a POST
    app.state.server = server
    return app


def _route(server: ServerState, operation: Operation) -> Route:
    """The route of an operation. It reads the body, limits the time, and cancels the work if the client hangs
    up.
    """

    async def endpoint(http_request: Request) -> ASGIApp:
        if operation.request is None:
            return await operation.endpoint(server, http_request)
        request = await read_body(http_request, operation.request, server.settings)
        async with while_connected(http_request.receive), asyncio.timeout(server.settings.timeout):
            return await operation.endpoint(server, http_request, request)

    return Route(operation.path, endpoint, methods=[operation.method])


async def _error_response(http_request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code in (404, 405):
        return _not_served(http_request, error).response(http_request.scope)
    api_error = as_api_error(error)
    assert api_error is not None
    return api_error.response(http_request.scope)


def _not_served(http_request: Request, error: HTTPException) -> ApiError:
    """What a client of another API gets, such as Ollama's."""
    path = http_request.url.path[:200]
    if error.status_code == 405:
        message = (
            f"{path} takes {(error.headers or {}).get('Allow', 'another method')}, not {http_request.method}"
        )
    else:
        served = ", ".join(f"{one.method} {one.path.replace(':path', '')}" for one in OPERATIONS)
        message = f"there is no {http_request.method} {path} here; there are: {served}"
    return ApiError(error.status_code, message, code="not_served", headers=error.headers)
