"""A model behind an OpenAI-compatible endpoint, asked one conversation at a time."""

import os
import time
from collections.abc import Sequence
from typing import Any

import httpx
import msgspec

from crawltalk.chat.messages import Message
from crawltalk.core.errors import BadInput, UserError
from crawltalk.core.printable import printable

TRIES, PAUSE, SECONDS = 3, 1.0, 120.0
"""Attempts at one request, seconds before the second (doubled before the third), and how long each may take, unless
told otherwise.
"""


class Endpoint:
    """Chat completions at an address. Threads may share it. Its key is read from the environment: OPENAI_API_KEY."""

    def __init__(
        self, url: str, model: str = "", *, way_out: str, seconds: float = SECONDS, tries: int = TRIES
    ) -> None:
        """`model` "": the first that the endpoint lists. `way_out`: what a person does when it fails; the end of the
        error's line. `seconds`: of one attempt at a request. Raises as `complete` does.
        """
        self._tries = tries
        self._url, self._way_out = url.rstrip("/"), way_out
        headers = {"authorization": f"Bearer {key}"} if (key := os.environ.get("OPENAI_API_KEY")) else {}
        self._client = httpx.Client(headers=headers, timeout=seconds)
        self.model: str = model or self._request("GET", "models", lambda sent: sent["data"][0]["id"])

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def complete(self, messages: Sequence[Message], max_tokens: int, **fields: Any) -> str:
        """The greedy reply; `fields` are further ones of the request. Raises BadInput if the endpoint refuses or sends
        something else, and UserError if it cannot be reached or fails as often as it is tried.
        """
        body = {"model": self.model, "messages": msgspec.to_builtins(messages), "temperature": 0.0}
        body |= {"max_tokens": max_tokens, **fields}
        text = self._request(
            "POST", "chat/completions", lambda sent: sent["choices"][0]["message"]["content"], json=body
        )
        return (text or "").strip()

    def _request(self, method: str, path: str, read: Any, **arguments: Any) -> Any:
        url, failure = f"{self._url}/{path}", ""
        for attempt in range(self._tries):
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                answer = self._client.request(method, url, **arguments)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                failure = printable(str(error) or type(error).__name__)
                continue
            if answer.status_code == 200:
                try:
                    return read(answer.json())
                except (ValueError, LookupError, TypeError):
                    said = printable(answer.text, 200)
                    raise BadInput(
                        f"{url} answers in no form of OpenAI's API: {said}; {self._way_out}"
                    ) from None
            failure = f"status {answer.status_code}: {printable(answer.text, 200)}"
            if answer.status_code < 500 and answer.status_code not in (408, 429):
                raise BadInput(f"{url} refuses: {failure}; {self._way_out}")
        raise UserError(f"{url} gives no answer ({failure}); {self._way_out}")
