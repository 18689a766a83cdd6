"""GET /v1/models and GET /v1/models/{model}."""

from starlette.requests import Request
from starlette.responses import Response

from crawltalk.chat.messages import PLACES, AudioPart, ImagePart
from crawltalk.serve.api.protocol import ModelCard, ModelList
from crawltalk.serve.api.sending import json_response
from crawltalk.serve.state import ServerState

READABLE = {"image_url": ImagePart, "input_audio": AudioPart}


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
        reads=[tag for tag, kind in READABLE.items() if PLACES[kind] in engine.renderer.places],
        trace=name in server.tracers,
    )
