"""GET /v1/models and GET /v1/models/{model}."""

from starlette.requests import Request
from starlette.responses import Response

from crawltalk.serve.api.protocol import ModelCard, ModelList
from crawltalk.serve.api.sending import json_response
from crawltalk.serve.state import ServerState


async def models(server: ServerState, http_request: Request) -> Response:
    """All models that are served."""
    return json_response(ModelList(data=[_card(server, name) for name in server.models]))


async def model(server: ServerState, http_request: Request) -> Response:
    """One model."""
    return json_response(_card(server, http_request.path_params["model"]))


def _card(server: ServerState, name: str) -> ModelCard:
    engine = server.service(name).engine
    return ModelCard(
        id=name,
        created=server.started,
        context_length=engine.context,
        chat=engine.renderer.chats,
        trace=name in server.tracers,
    )
