"""GET /openapi.json: the server's description (OpenAPI 3.1), built from its operations and their Structs."""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from crawltalk.serve.api.errors import AnthropicError, ErrorBody, is_anthropic
from crawltalk.serve.api.sending import json_response
from crawltalk.serve.state import ServerState

_PARAMETER = re.compile(r"\{(\w+)")
_STATUSES = ("400", "401", "403", "404", "405", "408", "413", "415", "429", "500", "503", "504")


async def description(server: ServerState, http_request: Request) -> Response:
    """This description, as OpenAPI."""
    return json_response(server.description)


@dataclass(frozen=True)
class Operation:
    """A method of a path, as OpenAPI calls it."""

    method: str
    path: str
    """In Starlette's form: `/v1/models/{model:path}`."""
    endpoint: Callable[..., Awaitable[ASGIApp]]
    """(server, http_request) or, with a body, (server, http_request, request) -> response. Its name is the
    operation's id, the first line of its docstring the summary.
    """
    response: Any
    """The type of a success; None: text."""
    request: type[msgspec.Struct] | None = None
    """The type of the body."""
    event: Any = None
    """The type of each event, if the request may set `stream`."""


def describe(operations: Sequence[Operation]) -> dict[str, Any]:
    """The OpenAPI document of these operations."""
    types = {
        kind
        for operation in operations
        for kind in (operation.response, operation.request, operation.event)
        if kind is not None
    }
    ordered = sorted(
        {*types, ErrorBody, AnthropicError}, key=lambda kind: getattr(kind, "__name__", str(kind))
    )
    references, schemas = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    reference = dict(zip(ordered, references, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        methods = paths.setdefault(operation.path.replace(":path", ""), {})
        methods[operation.method.lower()] = _describe(operation, reference)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "crawltalk",
            "version": version("crawltalk"),
            "description": "OpenAI's and Anthropic's APIs, served by the models of a run.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{"key": []}, {"x-api-key": []}, {}],
    }


def _describe(operation: Operation, reference: dict[Any, Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
    if operation.response is not None:
        success = {"application/json": {"schema": reference[operation.response]}}
    text = "Success."
    if operation.event is not None:
        success["text/event-stream"] = {}
        kinds = " or ".join(kind.__name__ for kind in get_args(operation.event) or (operation.event,))
        text = f"Success; with `stream`, events whose data are each a {kinds}."
    body = AnthropicError if is_anthropic(operation.path) else ErrorBody
    error = {"description": "No success.", "content": {"application/json": {"schema": reference[body]}}}
    described: dict[str, Any] = {
        "operationId": operation.endpoint.__name__,
        "summary": (operation.endpoint.__doc__ or "").split("\n")[0],
        "responses": {"200": {"description": text, "content": success}} | dict.fromkeys(_STATUSES, error),
    }
    if operation.request is not None:
        content = {"application/json": {"schema": reference[operation.request]}}
        described["requestBody"] = {"required": True, "content": content}
    if names := _PARAMETER.findall(operation.path):
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    return described
