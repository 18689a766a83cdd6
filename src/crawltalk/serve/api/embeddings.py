"""POST /v1/embeddings."""

import asyncio
import base64

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from crawltalk.serve.api.errors import bad_request, blaming
from crawltalk.serve.api.inputs import split_inputs, to_ids
from crawltalk.serve.api.protocol import Embedding, EmbeddingList, EmbeddingRequest, EmbeddingUsage
from crawltalk.serve.api.sending import json_response
from crawltalk.serve.state import ServerState

_BATCH = 16
"""Texts that are embedded between two steps of the engine, in which others wait."""


async def embeddings(server: ServerState, http_request: Request, request: EmbeddingRequest) -> Response:
    """The embedding of each text: the mean of the model's final hidden states, scaled to length 1.

    The models are trained to continue texts, not to compare them. So texts with close embeddings are alike in
    wording more than in meaning.
    """
    service = server.service(request.model)
    texts = split_inputs(request.input, "input")
    prompts = await asyncio.to_thread(lambda: [to_ids(service.engine, text, "input") for text in texts])
    count = sum(map(len, prompts))
    http_request.state.log_entry |= {"model": request.model, "prompt_tokens": count}
    with blaming("input"):
        vectors = [
            vector
            for start in range(0, len(prompts), _BATCH)
            for vector in await service.embed(prompts[start : start + _BATCH])
        ]
    if (size := request.dimensions) is not None:
        if size > len(vectors[0]):
            raise bad_request(f"an embedding of this model has {len(vectors[0])} dimensions", "dimensions")
        vectors = [_first(vector, size) for vector in vectors]
    in_base64 = request.encoding_format == "base64"
    data = [
        Embedding(index=index, embedding=_base64(vector) if in_base64 else vector)
        for index, vector in enumerate(vectors)
    ]
    return json_response(EmbeddingList(data=data, model=request.model, usage=EmbeddingUsage(count, count)))


def _first(vector: list[float], size: int) -> list[float]:
    """The first numbers, scaled to length 1 again."""
    first = np.asarray(vector[:size])
    return (first / max(float(np.linalg.norm(first)), 1e-12)).tolist()


def _base64(vector: list[float]) -> str:
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()
