"""The responses that clients may ask for again or continue (`/v1/responses`), in memory."""

from asyncio import Task
from collections import OrderedDict
from dataclasses import dataclass

import msgspec

from crawltalk.serve.api.protocol import ChatMessage
from crawltalk.serve.api.responses_protocol import ModelResponse


@dataclass(frozen=True)
class Stored:
    """A response, and the conversation up to its end."""

    response: ModelResponse
    messages: tuple[ChatMessage, ...]
    """Without `instructions`."""
    read: int
    """How many of the messages the model read; its reply follows when it is finished."""


class ResponseStore:
    """Responses by their ids. Each belongs to the client that asked for it: another one does not find it. If they
    are too many or too large, those go first that were not used for the longest time.
    """

    def __init__(self, *, most: int = 10_000, most_bytes: int = 1 << 26) -> None:
        """`most_bytes`: of all responses and conversations as JSON; a longer one is not kept."""
        self.most, self.most_bytes = most, most_bytes
        self.bytes = 0
        self.making: dict[tuple[str, str], Task[None]] = {}
        """Those that are made in the background, by client and id."""
        self._kept: OrderedDict[tuple[str, str], tuple[Stored, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, client: str, stored: Stored) -> None:
        """Keep a response, in the place of what was kept of it before."""
        self.delete(client, stored.response.id)
        size = len(msgspec.json.encode((stored.response, stored.messages)))
        if size > self.most_bytes:
            return
        self._kept[client, stored.response.id] = stored, size
        self.bytes += size
        while len(self._kept) > self.most or self.bytes > self.most_bytes:
            _, (_, size) = self._kept.popitem(last=False)
            self.bytes -= size

    def get(self, client: str, response_id: str) -> Stored | None:
        """A client's response, if it is still kept."""
        if (client, response_id) not in self._kept:
            return None
        self._kept.move_to_end((client, response_id))
        return self._kept[client, response_id][0]

    def delete(self, client: str, response_id: str) -> bool:
        """Forget a response. Returns whether there was one. Responses that continue it keep their conversation."""
        stored, size = self._kept.pop((client, response_id), (None, 0))
        self.bytes -= size
        return stored is not None
