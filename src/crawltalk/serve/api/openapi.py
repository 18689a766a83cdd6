"""The server's own description (OpenAPI 3.1), built from the routes and the Structs that requests are checked
with.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.types import ASGIApp

from crawltalk.serve.api.errors import ErrorBody

_STATUSES = ("400", "401", "403", "404", "405", "408", "413", "429", "500", "503", "504")


@dataclass(frozen=True)
class Operation:
    """One route."""

    method: str
    path: str
    """In Starlette's form: `/v1/models/{model:path}`."""
    call: Callable[..., Awaitable[ASGIApp]]
    """(serving, request) or, with a body, (serving, request, body) -> answer; its docstring is the summary.
    """
    answer: Any
    """What a success holds; None: text."""
    body: type[msgspec.Struct] | None = None
    event: Any = None
    """With `stream`: what each event holds."""


def describe(operations: Sequence[Operation]) -> dict[str, Any]:
    """The description of these routes."""
    kinds = {kind for one in operations for kind in (one.answer, one.body, one.event) if kind is not None}
    ordered = sorted({*kinds, ErrorBody}, key=lambda kind: kind.__name__)
    references, schemas = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    reference = dict(zip(ordered, references, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path.replace(":path", ""), {})[one.method.lower()] = _operation(one, reference)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "crawltalk",
            "version": version("crawltalk"),
            "description": "OpenAI's API, served by the models of a run.",
        },
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}, {}],
    }


def _operation(one: Operation, reference: dict[Any, Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
    if one.answer is not None:
        success = {"application/json": {"schema": reference[one.answer]}}
    about = "Success."
    if one.event is not None:
        success["text/event-stream"] = {}
        about = f"Success; with `stream`, events whose data are each a {one.event.__name__}, and `[DONE]`."
    error = {"description": "No success.", "content": {"application/json": {"schema": reference[ErrorBody]}}}
    described: dict[str, Any] = {
        "operationId": one.call.__name__,
        "summary": (one.call.__doc__ or "").split("\n")[0],
        "responses": {"200": {"description": about, "content": success}} | dict.fromkeys(_STATUSES, error),
    }
    if one.body is not None:
        content = {"application/json": {"schema": reference[one.body]}}
        described["requestBody"] = {"required": True, "content": content}
    if "{" in one.path:
        described["parameters"] = [
            {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    return described
