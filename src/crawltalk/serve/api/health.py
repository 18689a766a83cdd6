"""GET /health and GET /metrics, for programs that watch the server."""

from starlette.requests import Request
from starlette.responses import Response

from crawltalk.serve.api.errors import ApiError, shutting_down
from crawltalk.serve.api.protocol import Health
from crawltalk.serve.api.sending import json_response
from crawltalk.serve.state import ServerState


async def health(server: ServerState, http_request: Request) -> Response:
    """Whether the server takes requests."""
    if server.draining:
        raise shutting_down()
    if failed := [name for name, service in server.models.items() if service.failure is not None]:
        raise ApiError(
            503, f"the engine of {failed[0]} has failed: start the server again", code="engine_failed"
        )
    return json_response(Health())


async def metrics(server: ServerState, http_request: Request) -> Response:
    """Metrics in Prometheus' text format."""
    return Response(server.metrics.text(), media_type="text/plain; version=0.0.4")
