"""The server that a judge asks: ours over a model or a null model, or one that runs already."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from crawltalk.chat.endpoint import Endpoint
from crawltalk.chat.messages import Message
from crawltalk.core.errors import BadInput, UserError
from crawltalk.core.printable import printable
from crawltalk.engine import load_engine
from crawltalk.engine.service import Service
from crawltalk.models import model_folder
from crawltalk.redteam.controls import NULLS, Parrot
from crawltalk.redteam.endpoints import check_address
from crawltalk.redteam.frame import Prompt, Target
from crawltalk.redteam.obedient import StandIn, make_engine
from crawltalk.serve import Settings, make_app
from crawltalk.serve.http.server import serving

CONTROLS: dict[str, Target] = {one.name: one for one in (*NULLS, Parrot())}
"""Null models, by the names under which they are served, too."""
LONG = 2**17
"""Bytes that a null model reads: as its tokens are bytes, a prompt with 30 functions fits."""
_USER, _END = "<|im_start|>user<|im_sep|>", "<|im_end|>"


class Served(NamedTuple):
    """A model that answers at an address."""

    name: str
    """What clients call it."""
    origin: str
    """The address without /v1."""

    @property
    def port(self) -> int:
        """Of the address."""
        return httpx.URL(self.origin).port or 80

    def takes_tools(self) -> bool:
        """Whether a request may offer functions: a chat template may have no place for them. Raises UserError."""
        tool = {"type": "function", "function": {"name": "noop", "parameters": {"type": "object"}}}
        body = {"model": self.name, "messages": [{"role": "user", "content": "Hello"}], "tools": [tool]}
        url = f"{self.origin}/v1/chat/completions"
        try:
            answer = httpx.post(url, json={**body, "max_tokens": 1}, timeout=120)
        except httpx.HTTPError as error:
            raise UserError(f"{url} gives no answer ({printable(str(error))}); look at the server") from None
        return answer.status_code == 200 or "context_length" in answer.text


def is_address(model: str) -> bool:
    """Whether a person named an endpoint instead of a model."""
    return "://" in model


@contextmanager
def served(
    model: str,
    *,
    max_tokens: int,
    confirmed: bool = False,
    replies: Callable[[str], str] | None = None,
    name: str | None = None,
) -> Iterator[Served]:
    """A model at an address, while it is judged. `max_tokens`: of a reply whose request does not say how many.
    `confirmed`: whether a server of another machine may be attacked. `replies`: what answers in the model's place, a
    function of the whole prompt. `name`: what clients call the model, if not by its own name. Raises MissingInput or
    BadInput.
    """
    if is_address(model):
        check_address(model, confirmed)
        origin = model.rstrip("/").removesuffix("/v1")
        way_out = "look at the server, then run the same command again"
        with closing(Endpoint(f"{origin}/v1", way_out=way_out)) as endpoint:
            name = endpoint.model
        yield Served(name, origin)
        return
    if replies is None and model in CONTROLS:
        replies = _answers_of(CONTROLS[model])
    if replies is not None:
        service: Service = StandIn(replies, make_engine(LONG))
    else:
        folder = model_folder(model)
        service = Service(load_engine(folder))
        if not service.engine.renderer.chats:
            raise BadInput(f"{folder} has no chat format, so a judge has nothing to talk with")
    name = name or Path(model).name
    settings = Settings(hosts=("127.0.0.1", "localhost"), max_tokens=max_tokens, timeout=3600.0)
    with serving(make_app({name: service}, settings)) as origin:
        yield Served(name, origin)


def _answers_of(target: Target) -> Callable[[str], str]:
    """What a null model says to the user's last message."""

    def answer(prompt: str) -> str:
        request = prompt.rpartition(_USER)[2].partition(_END)[0]
        return target.answer([Prompt([Message("user", request)])])[0].text

    return answer
