"""Any OpenAI-compatible endpoint as a target. Without a person's word it is one of this machine."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from crawltalk.chat.endpoint import Endpoint
from crawltalk.core.errors import BadInput, UserError
from crawltalk.core.printable import printable
from crawltalk.redteam.frame import Prompt, Reply

LOCAL = ("localhost", "127.0.0.1", "::1")
AT_ONCE, TRIES, SECONDS = 8, 2, 60.0
"""Requests at a time, attempts at each, and how long an attempt may take."""
GIVE_UP = 3
"""Requests without an answer, one after the other, after which the endpoint is taken for gone."""


def check_address(url: str, confirmed: bool) -> None:
    """Raises BadInput for an address that is none, or that is not of this machine and not confirmed."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"{url!r} is no address of an endpoint; one is http://127.0.0.1:8000/v1")
    if parts.hostname not in LOCAL and not confirmed:
        raise BadInput(
            f"{parts.hostname} is another machine: attack it only if you may, and say so with --i-may-attack-it"
        )


class EndpointTarget:
    """Chat completions at an address. Whatever it does wrong is an error of that reply alone."""

    white_box = None

    def __init__(
        self,
        url: str,
        model: str = "",
        max_tokens: int = 128,
        *,
        seconds: float = SECONDS,
        tries: int = TRIES,
    ) -> None:
        """Raises UserError if it does not answer at all."""
        self._endpoint = Endpoint(
            url,
            model,
            way_out="look at the endpoint, then run the same command again",
            seconds=seconds,
            tries=tries,
        )
        self.name, self.max_tokens = (
            printable(f"{self._endpoint.model} at {urlsplit(url).netloc}"),
            max_tokens,
        )
        self._lost = 0

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Several at a time. When it is gone, the rest is not asked."""
        with ThreadPoolExecutor(AT_ONCE) as threads:
            return list(threads.map(self._ask, prompts))

    def _ask(self, prompt: Prompt) -> Reply:
        if self._lost >= GIVE_UP:
            return Reply(error="not asked: the endpoint had stopped answering", reached=False)
        began = time.perf_counter()
        try:
            text = self._endpoint.complete(prompt.messages, self.max_tokens)
        except BadInput as error:  # it answered, in no form that can be judged
            return Reply(error=str(error), seconds=time.perf_counter() - began)
        except UserError as error:
            self._lost += 1
            return Reply(error=str(error), reached=False, seconds=time.perf_counter() - began)
        self._lost = 0
        return Reply(text=text, seconds=round(time.perf_counter() - began, 6))
