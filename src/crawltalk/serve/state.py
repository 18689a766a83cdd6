"""What all routes of a server share: the models, the settings and the metrics."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from crawltalk.engine.service import Service
from crawltalk.serve.api.errors import ApiError
from crawltalk.serve.api.store import ResponseStore
from crawltalk.serve.http.metrics import Metrics
from crawltalk.serve.settings import Settings

Tracer = Callable[[str, list[int]], list[dict[str, Any]]]
"""(a reply, its tokens) -> where parts of it occur in the training data."""


class ServerState:
    """The state of one server.

    `models`: their engines, by the names that clients use; two names may have one engine. `tracers`: of the
    models whose training data is available. `description`: the server's OpenAPI document.
    """

    def __init__(
        self,
        models: Mapping[str, Service],
        settings: Settings,
        tracers: Mapping[str, Tracer],
        description: dict[str, Any],
    ) -> None:
        self.models, self.settings, self.tracers = models, settings, tracers
        self.description = description
        self.metrics = Metrics(models)
        self.responses = ResponseStore()
        self.started = int(time.time())
        self.draining = False
        """Whether the server is shutting down and takes no more requests."""

    def service(self, model: str) -> Service:
        """The engine of a model. Raises ApiError if there is no such model."""
        if model not in self.models:
            known = ", ".join(self.models)
            raise ApiError(
                404,
                f"no model {model[:200]!r} here; there are: {known}",
                param="model",
                code="model_not_found",
            )
        return self.models[model]

    def start(self) -> None:
        """Start the engines."""
        for service in set(self.models.values()):
            service.start()

    async def stop(self, grace: float) -> None:
        """Refuse new requests, finish the running ones in at most `grace` seconds, and stop the engines."""
        self.draining = True
        await asyncio.gather(*(service.stop(grace) for service in set(self.models.values())))
