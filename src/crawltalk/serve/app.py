"""The HTTP application: OpenAI's API over the models of a run."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from crawltalk.engine.service import Service
from crawltalk.serve.api import chat, completions, others, protocol
from crawltalk.serve.api.errors import KNOWN, ApiError, as_api_error
from crawltalk.serve.api.openapi import Operation, describe
from crawltalk.serve.http.body import read_body, while_connected
from crawltalk.serve.http.metrics import Metrics
from crawltalk.serve.http.middleware import Gate, Log
from crawltalk.serve.settings import Settings

Trace = Callable[[str, list[int]], list[dict[str, Any]]]
"""(a reply, its tokens) -> where they occur in the training data."""

OPERATIONS = (
    Operation(
        "POST",
        "/v1/chat/completions",
        chat.chat_completions,
        protocol.ChatAnswer,
        protocol.ChatRequest,
        event=protocol.ChatChunk,
    ),
    Operation(
        "POST",
        "/v1/completions",
        completions.completions,
        protocol.CompletionAnswer,
        protocol.CompletionRequest,
        event=protocol.CompletionAnswer,
    ),
    Operation("GET", "/v1/models", others.models, protocol.ModelList),
    Operation("GET", "/v1/models/{model:path}", others.model, protocol.ModelCard),
    Operation("POST", "/v1/embeddings", others.embeddings, protocol.EmbeddingList, protocol.EmbeddingRequest),
    Operation("POST", "/tokenize", others.tokenize, protocol.TokenizeAnswer, protocol.TokenizeRequest),
    Operation(
        "POST", "/detokenize", others.detokenize, protocol.DetokenizeAnswer, protocol.DetokenizeRequest
    ),
    Operation("GET", "/health", others.health, protocol.Health),
    Operation("GET", "/metrics", others.metrics, None),
    Operation("GET", "/openapi.json", others.description, dict[str, Any]),
)


class Serving:
    """What all routes of a server share."""

    def __init__(
        self, models: Mapping[str, Service], settings: Settings, traces: Mapping[str, Trace]
    ) -> None:
        self.models, self.settings, self.traces = models, settings, traces
        self.metrics = Metrics(models)
        self.description = describe(OPERATIONS)
        self.started = int(time.time())
        self.draining = False

    def service(self, name: str) -> Service:
        """The engine of a model. Raises ApiError if there is no such model."""
        if name not in self.models:
            known = ", ".join(self.models)
            raise ApiError(
                404,
                f"no model {name[:200]!r} here; there are: {known}",
                param="model",
                code="model_not_found",
            )
        return self.models[name]

    def start(self) -> None:
        """Start the engines."""
        for service in set(self.models.values()):
            service.start()

    async def stop(self, grace: float) -> None:
        """Take no more requests, finish what runs in at most `grace` seconds, and stop the engines."""
        self.draining = True
        await asyncio.gather(*(service.stop(grace) for service in set(self.models.values())))


def make_app(
    models: Mapping[str, Service],
    settings: Settings,
    routes: Sequence[BaseRoute] = (),
    traces: Mapping[str, Trace] | None = None,
) -> Starlette:
    """The application. Its lifespan starts the engines and stops them.

    `models`: by the names that clients use; two names may have one engine. `routes`: further ones, such as
    pages. Where there are keys all but the page (`/`, `/static/`), `/health` and `/openapi.json` need one.
    `traces`: of the models whose training data is at hand. `app.state.serving` is the `Serving`.
    """
    serving = Serving(models, settings, traces or {})

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        serving.start()
        yield
        await serving.stop(0)

    app = Starlette(
        routes=[*(_route(serving, operation) for operation in OPERATIONS), *routes],
        middleware=[Middleware(Log, serving=serving), Middleware(Gate, serving=serving)],
        exception_handlers=dict.fromkeys(KNOWN, _answer_error),
        lifespan=lifespan,
    )
    app.state.serving = serving
    return app


def _route(serving: Serving, operation: Operation) -> Route:
    """The route of an operation: its body is read, its time limited, its work cancelled if the client hangs
    up.
    """

    async def endpoint(request: Request) -> ASGIApp:
        if operation.body is None:
            return await operation.call(serving, request)
        body = await read_body(request, operation.body, serving.settings)
        async with while_connected(request.receive), asyncio.timeout(serving.settings.timeout):
            return await operation.call(serving, request, body)

    return Route(operation.path, endpoint, methods=[operation.method])


async def _answer_error(_: Request, error: Exception) -> Response:
    known = as_api_error(error)
    assert known is not None
    return known.response()
