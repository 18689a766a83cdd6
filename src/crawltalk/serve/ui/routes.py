"""The page that people use (`static/`), and the JSON that only it needs: a run's data, its stages, its
tokens.

The page talks to models over OpenAI's API, like any other client.
"""

from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from crawltalk.chat.messages import Message
from crawltalk.chat.prompts import as_assistant, few_shot
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import MissingInput
from crawltalk.core.jsonl import read_jsonl
from crawltalk.core.types import Placement
from crawltalk.labels import LabelStore
from crawltalk.retrieval.search import IndexProgress, Search
from crawltalk.retrieval.trace import TraceIndex
from crawltalk.run.folder import RunFolder
from crawltalk.serve.api.errors import ApiError, invalid_body
from crawltalk.serve.api.sending import json_response
from crawltalk.serve.http.body import read_body
from crawltalk.serve.settings import Settings
from crawltalk.serve.ui import browse
from crawltalk.serve.ui.answers import Answers
from crawltalk.serve.ui.attachments import document_endpoint
from crawltalk.serve.ui.games import game_routes
from crawltalk.serve.ui.labels import label_routes
from crawltalk.serve.ui.runs import LogRows, Runs
from crawltalk.tasks.recall import question_about

STATIC = Path(__file__).parent / "static"
_NO_CACHE = {"cache-control": "no-cache"}
"""The browser asks before it uses its copy, so that a new version is seen at once."""
_NO_RUN = "no run is served, only a model; serve one with: crawltalk serve runs/small"
_STEPS_CHARACTERS = 200
"""Characters of a text, from whose first chunk the steps are shown."""
_FRENCH = (("cat", "chat"), ("house", "maison"), ("to sing", "chanter"))
_EXAMPLES = [
    ("gold", "a chemical element"),
    ("oxygen", "a chemical element"),
    ("Paris", "a city in France"),
    ("lion", "a large cat"),
]
_TURN = ("Who are you?", "I am an assistant. I answer questions.")
Text = Annotated[str, Meta(max_length=100_000)]
ShortText = Annotated[str, Meta(max_length=1000)]
Count = Annotated[int, Meta(ge=0, le=2**53)]


class TokensRequest(Struct):
    """A text, or a conversation, for a model's tokenizer."""

    model: ShortText
    text: Text = ""
    messages: Annotated[list[Message], Meta(max_length=100)] | None = None


class TraceRequest(Struct):
    text: Text


class ListRequest(Struct):
    """A list of crawled pages, from a position on. Dropped ones may be chosen by step and reason."""

    kind: browse.Kind
    start: ShortText = ""
    step: ShortText = ""
    reason: ShortText = ""


class PageRequest(Struct):
    """One crawled page."""

    kind: browse.Kind
    place: ShortText


class SearchRequest(Struct):
    words: ShortText
    offset: Count = 0


class LogRequest(Struct):
    """The log of a training, from a byte on."""

    run: ShortText
    stage: ShortText
    start: Count = 0


class RolloutsRequest(Struct):
    """Samples of a reinforcement, from a place between 0, its beginning, and 1, the newest."""

    run: ShortText
    stage: ShortText
    at: Annotated[float, Meta(ge=0, le=1)] = 1.0


class RunRequest(Struct):
    run: ShortText


class EmptyRequest(Struct):
    """No parameters."""


class _StaticFiles(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_NO_CACHE)
        return response


def routes(
    run: RunFolder | None,
    renderers: Mapping[str, ChatRenderer],
    index: TraceIndex | None,
    settings: Settings,
    labels: LabelStore | None = None,
    answers: Answers | None = None,
    lab: Path | None = None,
) -> list[BaseRoute]:
    """The page and its JSON.

    `run`: the served one; None if the model belongs to no run. `renderers`: by the names of the models. `index`:
    of the run's training data, if there is one. `labels`: where labels go; None: nobody can label. `answers`: the
    tools of this server, and search. `lab`: the folder with the policies of its games.
    """
    answers = answers if answers is not None else Answers({})
    handlers = _Handlers(run, renderers, index, labels, answers)

    def get(path: str, kind: type[Struct], handler: Callable[[Any], Any]) -> Route:
        async def endpoint(http_request: Request) -> Response:
            try:
                request = msgspec.convert(dict(http_request.query_params), kind, strict=False)
            except msgspec.ValidationError as error:
                raise invalid_body(error) from None
            return await _respond(handler, request)

        return Route(path, endpoint)

    def post(path: str, kind: type[Struct], handler: Callable[[Any], Any]) -> Route:
        async def endpoint(http_request: Request) -> Response:
            return await _respond(handler, await read_body(http_request, kind, settings))

        return Route(path, endpoint, methods=["POST"])

    return [
        Route("/", _index),
        Mount("/static", _StaticFiles(directory=STATIC)),
        get("/api/about", EmptyRequest, handlers.about),
        post("/api/tokens", TokensRequest, handlers.tokens),
        post("/api/steps", TokensRequest, handlers.steps),
        Route("/api/answer", answers.endpoint, methods=["POST"]),
        Route("/api/document", document_endpoint(settings), methods=["POST"]),
        post("/api/trace", TraceRequest, handlers.trace),
        get("/api/data/funnel", EmptyRequest, handlers.funnel),
        get("/api/data/rows", ListRequest, handlers.list_pages),
        get("/api/data/page", PageRequest, handlers.read_page),
        get("/api/data/search", SearchRequest, handlers.search),
        get("/api/runs", EmptyRequest, handlers.runs),
        get("/api/runs/stages", RunRequest, handlers.stages),
        get("/api/runs/log", LogRequest, handlers.log),
        get("/api/runs/rollouts", RolloutsRequest, handlers.rollouts),
        *label_routes(labels, get, post),
        *game_routes(lab, get),
    ]


async def _index(_: Request) -> Response:
    return FileResponse(STATIC / "index.html", headers=_NO_CACHE)


async def _respond(handler: Callable[[Any], Any], request: Struct) -> Response:
    """What a handler returns, as JSON. Handlers read files, so they run in a thread."""
    try:
        content = await run_in_threadpool(handler, request)
    except MissingInput as error:
        raise ApiError(404, str(error)) from None
    return json_response(content)


class _Handlers:
    """One method for each route, from its request to what is sent as JSON."""

    def __init__(
        self,
        run: RunFolder | None,
        renderers: Mapping[str, ChatRenderer],
        index: TraceIndex | None,
        labels: LabelStore | None,
        answers: Answers,
    ) -> None:
        self._run, self._renderers, self._index, self._labels = run, renderers, index, labels
        self._answers = answers
        self._runs = Runs(run) if run else None
        self._search = Search(run) if run else None

    def about(self, _: EmptyRequest) -> dict[str, Any]:
        """What is served, and examples to begin with: questions for the chat, prompts for the playground."""
        known = self._titles()
        prompts = {
            "A title": known[0][0],
            "Few-shot: titles and descriptions": few_shot(known[1:], known[0][0]),
            "Few-shot: a translation": few_shot(_FRENCH, "butterfly"),
            "As an assistant": as_assistant([_TURN], question_about(*known[0])),
        }
        questions = [question_about(title, description) for title, description in known[:3]]
        return {
            "run": self._run.path.resolve().name if self._run else None,
            "trace": self._index is not None,
            "labels": self._labels is not None,
            "questions": questions,
            **self._answers.about(),
            "prompts": [{"name": name, "prompt": prompt} for name, prompt in prompts.items()],
        }

    def tokens(self, request: TokensRequest) -> dict[str, Any]:
        """The tokens of a text or a conversation: id, bytes in hexadecimal digits, the name of a control token, and
        whether a fine-tuning would learn it.
        """
        chat = self._renderer(request.model)
        tokenizer = chat.tokenizer
        if request.messages is None:
            ids = tokenizer.encode(request.text)
            loss_mask = [False] * len(ids)
        else:
            ids, loss_mask = chat.render(request.messages, add_generation_prompt=True)
        names = {index: name for name, index in tokenizer.special_tokens.items()}
        rows = [
            {
                "id": index,
                "bytes": tokenizer.decode_bytes([index]).hex(),
                "control": names.get(index),
                "learned": learned,
            }
            for index, learned in zip(ids, loss_mask, strict=True)
        ]
        return {"tokens": rows, "size": tokenizer.vocab_size}

    def steps(self, request: TokensRequest) -> list[list[str]]:
        """How the tokenizer merges the first chunk of a text: its parts after each step, in hexadecimal digits."""
        return [
            [part.hex() for part in parts]
            for parts in self._renderer(request.model).tokenizer.steps(request.text[:_STEPS_CHARACTERS])
        ]

    def trace(self, request: TraceRequest) -> dict[str, Any]:
        """Passages of a text that occur word for word in the training data, in order, with the pages that
        hold each. Where two overlap, the less likely one is taken.
        """
        if self._index is None:
            raise MissingInput(
                "the training data of this model has no index; a run has one: crawltalk run small"
            )
        spans: list[dict[str, Any]] = []
        for passage in self._index.trace(request.text).passages:
            if all(passage.end <= span["start"] or span["end"] <= passage.start for span in spans):
                sources = [
                    {"id": source.id, "url": source.url, "title": source.title, "excerpt": source.excerpt}
                    for source in passage.span.sources
                ]
                span = {"start": passage.start, "end": passage.end, "count": passage.span.occurrences}
                spans.append(span | {"pages": passage.span.documents, "documents": sources})
        return {"spans": sorted(spans, key=lambda span: span["start"])}

    def funnel(self, _: EmptyRequest) -> Any:
        """The record of the data stage: how many pages each step has left."""
        return msgspec.Raw((self._served_run().finished("data") / "funnel.json").read_bytes())

    def list_pages(self, request: ListRequest) -> browse.PageList:
        """Documents, or dropped pages."""
        filters = {"step": request.step, "reason": request.reason} if request.kind == "removed" else {}
        filters = {name: value for name, value in filters.items() if value}
        return browse.list_pages(self._served_run().finished("data"), request.kind, request.start, filters)

    def read_page(self, request: PageRequest) -> dict[str, Any]:
        """One document or dropped page, with its text."""
        return browse.read_page(self._served_run().finished("data"), request.kind, request.place)

    def search(self, request: SearchRequest) -> dict[str, Any]:
        """Documents with these words; while the index is being built, its progress."""
        if self._search is None:
            raise MissingInput(_NO_RUN)
        results = self._search.search(request.words, request.offset)
        if isinstance(results, IndexProgress):
            return {"indexing": {"done": results.done, "of": results.total}}
        rows = [
            {"place": result.position, "url": result.url, "title": result.title, "snippet": result.snippet}
            for result in results.results
        ]
        return {"count": results.count, "rows": rows}

    def runs(self, _: EmptyRequest) -> dict[str, Any]:
        """The served run and those beside it."""
        runs = self._all_runs()
        return {"served": runs.served.path.resolve().name, "runs": runs.names()}

    def stages(self, request: RunRequest) -> dict[str, Any]:
        """The stages of a run."""
        return self._all_runs().states(request.run)

    def log(self, request: LogRequest) -> LogRows:
        """The log of a training."""
        return self._all_runs().log(request.run, request.stage, request.start)

    def rollouts(self, request: RolloutsRequest) -> dict[str, Any]:
        """Problems with their replies and verdicts."""
        return {"rows": self._all_runs().rollouts(request.run, request.stage, request.at)}

    def _renderer(self, model: str) -> ChatRenderer:
        if model not in self._renderers:
            raise MissingInput(
                f"there is no model {model[:100]!r} here; there are: {', '.join(self._renderers)}"
            )
        return self._renderers[model]

    def _served_run(self) -> RunFolder:
        if self._run is None:
            raise MissingInput(_NO_RUN)
        return self._run

    def _all_runs(self) -> Runs:
        if self._runs is None:
            raise MissingInput(_NO_RUN)
        return self._runs

    def _titles(self) -> list[tuple[str, str]]:
        """Titles and descriptions of pages that the model has read many times."""
        path = self._run.folder("tokens") / "documents.jsonl" if self._run else Path()
        rows = read_jsonl(path, Placement) if path.is_file() else ()
        known = (
            (row.title, row.description)
            for row in rows
            if row.role == "flagship" and row.title and row.description
        )
        return list(islice(known, 4)) or _EXAMPLES
