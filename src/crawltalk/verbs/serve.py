"""The verb that serves models over HTTP."""

import logging
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from cyclopts import Parameter
from rich.markup import escape

from crawltalk.core.errors import UserError
from crawltalk.models import MODELS, model_folder, models_of_run
from crawltalk.run.console import console, errors
from crawltalk.run.folder import RunFolder, find_run
from crawltalk.verbs.trace import open_index

if TYPE_CHECKING:
    from crawltalk.engine.service import Service
    from crawltalk.serve.ui.answers import Answers

_LOCAL = ("127.0.0.1", "localhost", "::1")
_KEYS = "CRAWLTALK_API_KEYS"
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s]+/?")


def serve(
    model: str = "runs/small",
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    origin: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    host_name: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    max_tokens: int | None = None,
    rate: int | None = None,
    queue: int = 256,
    timeout: float = 600.0,
    max_body: int = 4_000_000,
    grace: float = 30.0,
    precision: Literal["float32", "bfloat16", "int8"] = "float32",
    cache: float | None = None,
    log_prompts: Annotated[bool, Parameter(negative=())] = False,
    labels: Path | None = None,
    tools: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    allow: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    documents: str | None = None,
    lab: Path = Path("lab"),
) -> None:
    """Serve models to browsers and to any client of OpenAI's or Anthropic's API.

    Parameters
    ----------
    model
        A run, whose models are all served; an imported model (smollm2), or a folder in Hugging Face's layout.
    host
        The address to listen on. Any other than this machine's own needs a key.
    api_key
        A key that clients must send; may be given again. Other users of this machine can see it, but not keys in the
        environment's CRAWLTALK_API_KEYS, separated by commas.
    origin
        An origin whose pages may ask this server (http://localhost:5173; http://localhost:* for any port; * for all);
        may be given again.
    host_name
        A further name of this machine by which requests may come (host.docker.internal); may be given again.
    max_tokens
        Tokens of a reply whose request does not say how many: as many as fit, unless given.
    rate
        Requests a minute of one key.
    queue
        Requests of one model that may wait beyond those that run.
    timeout
        Seconds for one request.
    max_body
        Bytes of one request.
    grace
        Seconds in which running requests may finish after Ctrl-C or SIGTERM.
    precision
        The type of the weights.
    cache
        Gigabytes of keys and values that each model keeps: an eighth of the memory, at most 1, unless given.
    log_prompts
        Write prompts and replies to the log.
    labels
        The folder of labels.sqlite, where labels and thumbs of the page go: the run's, unless given.
    tools
        What assistants may call in this server's page, between commas: calculator, python, search (in the run's
        documents), fetch. The API returns calls to its clients instead, as OpenAI's does.
    allow
        The beginning of addresses that fetch may get; may be given again.
    documents
        The run whose documents are searched: the served one, unless given.
    lab
        The folder of `crawltalk lab`, whose policies play connect four on the page.
    """
    keys = tuple(filter(None, (*api_key, *os.environ.get(_KEYS, "").split(","))))
    if host not in _LOCAL and not keys:
        raise UserError(
            f"anybody could use a server on {host}: give --api-key or {_KEYS}, or leave --host out"
        )
    if cache is not None and not 0 < cache < 1e6:
        raise UserError("cache is above 0: gigabytes")
    if (
        port not in range(65536)
        or queue < 1
        or max_body < 1
        or timeout <= 0
        or grace < 0
        or (rate is not None and rate < 1)
        or (max_tokens is not None and max_tokens < 1)
    ):
        raise UserError(
            "port is below 65536, queue, max-body, max-tokens and rate are 1 or more, timeout is above 0, "
            "grace is 0 or more"
        )
    if wrong := [one for one in origin if one not in ("*", "null") and not _ORIGIN.fullmatch(one)]:
        raise UserError(f"{wrong[0]!r} is no origin; one is like http://localhost:5173, without a path")
    from crawltalk.engine.service import Service
    from crawltalk.labels import LabelStore
    from crawltalk.multimodal import load_engine
    from crawltalk.serve import Settings, make_app, run
    from crawltalk.serve.http.server import listen
    from crawltalk.serve.ui.routes import routes

    served, folders = models_of(model)
    cache_bytes = None if cache is None else int(cache * 1e9)
    services = {
        folder: Service(load_engine(folder, precision=precision, cache_bytes=cache_bytes), queue=queue)
        for folder in set(folders.values())
    }
    models = {name: services[folder] for name, folder in folders.items()}
    renderers = {name: service.engine.renderer for name, service in models.items()}
    names = tuple(name.lower() for name in host_name)
    hosts = (*_LOCAL, *names) if host in _LOCAL else names or None
    settings = Settings(
        keys=keys,
        rate=rate,
        timeout=timeout,
        max_body=max_body,
        hosts=hosts,
        origins=origin,
        max_tokens=max_tokens,
        log_prompts=log_prompts,
    )
    index = open_index(served.path) if served and served.manifest("index") else None
    tracers = (
        {name: lambda text, _: msgspec.to_builtins(index.trace(text).passages) for name in models}
        if index
        else {}
    )
    labels = labels or (served.path if served else None)
    store = LabelStore(labels) if labels else None
    answers = _answers(models, tools, allow, served if documents is None else find_run(documents))
    app = make_app(models, settings, routes(served, renderers, index, settings, store, answers, lab), tracers)
    log = logging.getLogger("crawltalk.serve")
    log.addHandler(logging.StreamHandler(sys.stderr))
    log.setLevel(logging.INFO)
    with listen(host, port) as listener:
        _announce(host, listener.getsockname()[1], next(iter(models)), bool(keys))
        run(app, listener, grace)


def _answers(
    models: Mapping[str, "Service"], names: tuple[str, ...], allow: tuple[str, ...], run: RunFolder | None
) -> "Answers":
    """The tools of the page, for each model as its context allows. Raises UserError."""
    from crawltalk.serve.ui.answers import Answers
    from crawltalk.tools.answers import Answerer
    from crawltalk.tools.toolbox import Surroundings

    around = {
        name: Surroundings(run=run, allowed=allow, context=service.engine.context)
        for name, service in models.items()
    }
    tools = {name: Answerer(names, one) for name, one in around.items()} if names or allow else {}
    for notice in next(iter(tools.values())).notices if tools else ():
        errors.print(f"[dim]{escape(notice)}", soft_wrap=True)
    return Answers(tools, run if run is not None and run.manifest("data") is not None else None)


def models_of(name: str | Path) -> tuple[RunFolder | None, dict[str, Path]]:
    """The run, if `name` is one, and the folders of the models to serve by their names, the best one first.

    For a run `small` the names are `small`, which is its assistant, and `small/STAGE` for each stage that made
    a model. Raises MissingInput.
    """
    best = model_folder(name)
    runs = [run for run in (RunFolder(name), RunFolder(Path("runs") / name)) if run.exists()]
    if not runs or best.resolve() in (Path(name).resolve(), (MODELS / name).resolve()):
        return None, {best.resolve().name: best}
    title = runs[0].path.resolve().name
    folders = {
        f"{title}/{stage.name}": folder for stage, folder in models_of_run(runs[0]) if stage.makes != "reward"
    }
    return runs[0], {title: best} | folders


def _announce(host: str, port: int, model: str, keyed: bool) -> None:
    """Print the server's address, and a first request for curl."""
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    key = " -H 'Authorization: Bearer KEY'" if keyed else ""
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    console.print(f"{address}/", markup=False, soft_wrap=True)
    console.print(f"curl {address}/v1/chat/completions{key} -d '{body}'", markup=False, soft_wrap=True)
