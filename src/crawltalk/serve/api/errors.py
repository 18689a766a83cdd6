"""Errors in the form of the API that a client asks: OpenAI's {"error": {"message", "type", "param", "code"}}, and
under /v1/messages Anthropic's {"type": "error", "error": {"type", "message"}}.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from crawltalk.core.errors import ContextOverflow, UserError
from crawltalk.engine.service import QueueFull

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "unavailable_error",
    504: "timeout_error",
}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_OVERFLOW = "context_length_exceeded"
"""OpenAI's code, for which litellm, LangChain and others look."""
_MESSAGE = re.compile(r"^(?P<problem>.*?)(?: - at `(?:key` in `)?\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)
"""An error of msgspec: the problem, and the path of the field."""
_FIELD = re.compile(r"(?:unknown|required) field `([^`]*)`")


class ErrorDetail(msgspec.Struct):
    message: str
    type: str
    param: str | None
    """The field of the request that is wrong."""
    code: str | None


class ErrorBody(msgspec.Struct):
    """The body of every response that is no success."""

    error: ErrorDetail


class AnthropicErrorDetail(msgspec.Struct):
    type: str
    message: str


class AnthropicError(msgspec.Struct, tag_field="type", tag="error"):
    """The same in Anthropic's API."""

    error: AnthropicErrorDetail
    request_id: str | None = None


class ApiError(Exception):
    """An error response."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers
        self.detail = ErrorDetail(message, _TYPES.get(status, "invalid_request_error"), param, code)

    def anthropic(self, request_id: str) -> AnthropicError:
        """In the form of Anthropic's API."""
        kind = _ANTHROPIC_TYPES.get(self.status, "invalid_request_error")
        return AnthropicError(AnthropicErrorDetail(kind, self.detail.message), request_id)

    def response(self, scope: Scope) -> Response:
        """As a response with its status and headers, in the form of the API to which the path belongs."""
        body: msgspec.Struct = ErrorBody(self.detail)
        if is_anthropic(scope["path"]):
            body = self.anthropic(scope["state"]["log_entry"]["id"])
        return Response(msgspec.json.encode(body), self.status, self.headers, media_type="application/json")


def is_anthropic(path: str) -> bool:
    """Whether a path is one of Anthropic's API, but not of OpenAI's."""
    return path == "/v1/messages" or path.startswith("/v1/messages/")


class ClientGone(Exception):
    """The client hung up: nobody will read a response."""


def bad_request(message: str, param: str | None = None) -> ApiError:
    """Status 400: the request is wrong. `param`: the field."""
    return ApiError(400, message, param=param)


@contextlib.contextmanager
def blaming(param: str, kind: type[UserError] = UserError) -> Iterator[None]:
    """Errors of this kind in the block are the fault of this field of the request."""
    try:
        yield
    except kind as error:
        if isinstance(error, ContextOverflow):
            raise _overflow(error, param) from None
        raise ApiError(400, str(error), param=param, code="invalid_value") from None


def _overflow(error: ContextOverflow, param: str | None = None) -> ApiError:
    """A prompt that is too long. The message has the code, too: LangChain looks for it there."""
    return ApiError(400, f"{error} ({_OVERFLOW})", param=param, code=_OVERFLOW)


def internal_error(request_id: str) -> ApiError:
    """A bug of ours. The message names the log entry with the traceback."""
    return ApiError(500, f"an error of ours, in the log as {request_id}", code="internal_error")


def shutting_down() -> ApiError:
    """The server takes no more requests."""
    return ApiError(503, "the server is shutting down", code="shutting_down", headers={"retry-after": "10"})


def invalid_body(error: Exception) -> ApiError:
    """A body that is not JSON, or JSON of another type: msgspec's error as a response."""
    if not isinstance(error, msgspec.ValidationError):
        return ApiError(400, f"the body is no valid JSON: {error}", code="invalid_json")
    match = _MESSAGE.match(str(error))
    problem, path = (match["problem"], match["path"] or "") if match else (str(error), "")
    if field := _FIELD.search(problem):
        path = f"{path}.{field[1]}".lstrip(".")
    return ApiError(400, f"{path or 'the body'}: {problem}", param=path or None, code="invalid_value")


HANDLED = (ApiError, UserError, QueueFull, TimeoutError, RecursionError, HTTPException)
"""Exceptions that have a response of their own; any other one is a bug of ours."""


def as_api_error(error: Exception) -> ApiError | None:
    """The response to an exception of `HANDLED`; None for another one."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UserError | RecursionError):
        return bad_request(str(error) if isinstance(error, UserError) else "the body is nested too deeply")
    if isinstance(error, QueueFull):
        return ApiError(
            429, f"the queue is full: {error}; try again", code="queue_full", headers={"retry-after": "1"}
        )
    if isinstance(error, TimeoutError):
        return ApiError(
            504, "the server's limit of time for a request is over; ask for fewer tokens", code="timeout"
        )
    if isinstance(error, HTTPException):
        return ApiError(
            error.status_code, f"{error.detail}; what there is: /openapi.json", headers=error.headers
        )
    return None
