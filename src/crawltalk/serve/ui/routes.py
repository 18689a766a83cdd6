"""The page that people use (`static/`), and the JSON that only it needs: a run's data, its stages, its
tokens.

What the page says to the model goes over OpenAI's API like any other client's.
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
from crawltalk.retrieval.search import Search
from crawltalk.retrieval.trace import TraceIndex
from crawltalk.run.folder import RunFolder
from crawltalk.serve.api.errors import ApiError, of_decoding
from crawltalk.serve.http.body import read_body
from crawltalk.serve.settings import Settings
from crawltalk.serve.ui import browse
from crawltalk.serve.ui.runs import Runs

STATIC = Path(__file__).parent / "static"
_FRESH = {"cache-control": "no-cache"}
"""A new version is seen at once."""
_NO_RUN = "no run is served, only a model; serve one with: crawltalk serve runs/small"
_CHUNK = 200
"""Characters of a text whose first chunk is merged step by step."""
_FRENCH = (("cat", "chat"), ("house", "maison"), ("to sing", "chanter"))
_PAGES = [
    ("gold", "a chemical element"),
    ("oxygen", "a chemical element"),
    ("Paris", "a city in France"),
    ("lion", "a large cat"),
]
_ASKED = ("Who are you?", "I am an assistant. I answer questions.")
Text = Annotated[str, Meta(max_length=100_000)]
Word = Annotated[str, Meta(max_length=1000)]
Count = Annotated[int, Meta(ge=0, le=2**53)]


class Tokens(Struct):
    """A text, or a conversation, to be cut by a model's tokenizer."""

    model: Word
    text: Text = ""
    messages: Annotated[list[Message], Meta(max_length=100)] | None = None


class Traced(Struct):
    """A text whose passages are looked for in the training data."""

    text: Text


class Rows(Struct):
    """A list of pages: from a place on, and of one step and reason if they were dropped."""

    kind: browse.Kind
    start: Word = ""
    step: Word = ""
    reason: Word = ""


class Page(Struct):
    """One page."""

    kind: browse.Kind
    place: Word


class Query(Struct):
    """Words to search for."""

    words: Word
    offset: Count = 0


class Log(Struct):
    """A training's log from a byte on."""

    run: Word
    stage: Word
    start: Count = 0


class Named(Struct):
    """A run."""

    run: Word


class Nothing(Struct):
    """No parameters."""


class _Files(StaticFiles):
    """Files that the browser asks about before it uses its copy."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """One file."""
        response = await super().get_response(path, scope)
        response.headers.update(_FRESH)
        return response


def routes(
    run: RunFolder | None,
    renderers: Mapping[str, ChatRenderer],
    trace: TraceIndex | None,
    settings: Settings,
) -> list[BaseRoute]:
    """The page and its JSON.

    `run`: the served one, None where a model from elsewhere is served; `renderers`: of each model; `trace`:
    of the run's training data, if it has an index.
    """
    pages = _Pages(run, renderers, trace)

    def get(path: str, asked: type[Struct], answer: Callable[[Any], Any]) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                question = msgspec.convert(dict(request.query_params), asked, strict=False)
            except msgspec.ValidationError as error:
                raise of_decoding(error) from None
            return await _answer(answer, question)

        return Route(path, endpoint)

    def post(path: str, asked: type[Struct], answer: Callable[[Any], Any]) -> Route:
        async def endpoint(request: Request) -> Response:
            return await _answer(answer, await read_body(request, asked, settings))

        return Route(path, endpoint, methods=["POST"])

    return [
        Route("/", _index),
        Mount("/static", _Files(directory=STATIC)),
        get("/api/about", Nothing, pages.about),
        post("/api/tokens", Tokens, pages.tokens),
        post("/api/steps", Tokens, pages.steps),
        post("/api/trace", Traced, pages.traced),
        get("/api/data/funnel", Nothing, pages.funnel),
        get("/api/data/rows", Rows, pages.rows),
        get("/api/data/page", Page, pages.page),
        get("/api/data/search", Query, pages.search),
        get("/api/runs", Nothing, pages.names),
        get("/api/runs/stages", Named, pages.stages),
        get("/api/runs/log", Log, pages.log),
    ]


async def _index(_: Request) -> Response:
    return FileResponse(STATIC / "index.html", headers=_FRESH)


async def _answer(answer: Callable[[Any], Any], question: Struct) -> Response:
    """What a method of `_Pages` gives, as JSON; it reads files, so it runs in a thread."""
    try:
        content = await run_in_threadpool(answer, question)
    except MissingInput as error:
        raise ApiError(404, str(error)) from None
    return Response(msgspec.json.encode(content), media_type="application/json")


class _Pages:
    """What the routes answer; each method gets its parameters as a Struct."""

    def __init__(
        self,
        run: RunFolder | None,
        renderers: Mapping[str, ChatRenderer],
        trace: TraceIndex | None,
    ) -> None:
        self.served, self.renderers, self.trace = run, renderers, trace
        self.beside = Runs(run) if run else None
        self.index = Search(run) if run else None

    def about(self, _: Nothing) -> dict[str, Any]:
        """What is served, and what to begin with: questions for the chat, prompts for the playground."""
        known = self._titles()
        prompts = {
            "A title": known[0][0],
            "Few-shot: titles and descriptions": few_shot(known[1:], known[0][0]),
            "Few-shot: a translation": few_shot(_FRENCH, "butterfly"),
            "As an assistant": as_assistant([_ASKED], "What is gold?"),
        }
        questions = [f"What is {title}?" for title, _ in known[:3]]
        return {
            "run": self.served.path.resolve().name if self.served else None,
            "trace": self.trace is not None,
            "questions": questions,
            "prompts": [{"name": name, "prompt": prompt} for name, prompt in prompts.items()],
        }

    def tokens(self, asked: Tokens) -> dict[str, Any]:
        """The tokens of a text or a conversation: id, bytes in hexadecimal digits, and the name of a control
        token.
        """
        chat = self._renderer(asked.model)
        tokenizer = chat.tokenizer
        ids = (
            tokenizer.encode(asked.text)
            if asked.messages is None
            else chat.encode_chat(asked.messages, reply=True)
        )
        names = {index: name for name, index in tokenizer.specials.items()}
        rows = [
            {"id": index, "bytes": tokenizer.decode_bytes([index]).hex(), "control": names.get(index)}
            for index in ids
        ]
        return {"tokens": rows, "size": tokenizer.size}

    def steps(self, asked: Tokens) -> list[list[str]]:
        """How the first chunk of a text is merged: after each step its parts, in hexadecimal digits."""
        return [
            [part.hex() for part in parts]
            for parts in self._renderer(asked.model).tokenizer.steps(asked.text[:_CHUNK])
        ]

    def traced(self, asked: Traced) -> dict[str, Any]:
        """Passages of a text that stand word for word in the training data, in order, and the pages that hold
        each.

        Where two overlap, the less likely one is taken.
        """
        if self.trace is None:
            raise MissingInput(
                "the training data of this model has no index; a run has one: crawltalk run small"
            )
        spans: list[dict[str, Any]] = []
        for passage in self.trace.trace(asked.text).passages:
            if all(passage.end <= span["start"] or span["end"] <= passage.start for span in spans):
                sources = [
                    {"id": source.id, "url": source.url, "title": source.title, "excerpt": source.excerpt}
                    for source in passage.span.sources
                ]
                span = {"start": passage.start, "end": passage.end, "count": passage.span.occurrences}
                spans.append(span | {"pages": passage.span.documents, "documents": sources})
        return {"spans": sorted(spans, key=lambda span: span["start"])}

    def funnel(self, _: Nothing) -> Any:
        """The record of the data stage."""
        return msgspec.Raw((self._run().finished("data") / "funnel.json").read_bytes())

    def rows(self, asked: Rows) -> browse.Listed:
        """Documents, or dropped pages."""
        wanted = {"step": asked.step, "reason": asked.reason} if asked.kind == "removed" else {}
        wanted = {name: value for name, value in wanted.items() if value}
        return browse.listed(self._run().finished("data"), asked.kind, asked.start, wanted)

    def page(self, asked: Page) -> dict[str, Any]:
        """One of them with its text."""
        return browse.page(self._run().finished("data"), asked.kind, asked.place)

    def search(self, asked: Query) -> dict[str, Any]:
        """Documents with these words."""
        if self.index is None:
            raise MissingInput(_NO_RUN)
        return self.index.find(asked.words, asked.offset)

    def names(self, _: Nothing) -> dict[str, Any]:
        """The runs beside the served one."""
        return {"served": self._runs().served.path.resolve().name, "runs": self._runs().names()}

    def stages(self, asked: Named) -> dict[str, Any]:
        """The stages of a run."""
        return self._runs().states(asked.run)

    def log(self, asked: Log) -> Any:
        """The log of a training."""
        return self._runs().log(asked.run, asked.stage, asked.start)

    def _renderer(self, model: str) -> ChatRenderer:
        if model not in self.renderers:
            raise MissingInput(
                f"there is no model {model[:100]!r} here; there are: {', '.join(self.renderers)}"
            )
        return self.renderers[model]

    def _run(self) -> RunFolder:
        if self.served is None:
            raise MissingInput(_NO_RUN)
        return self.served

    def _runs(self) -> Runs:
        if self.beside is None:
            raise MissingInput(_NO_RUN)
        return self.beside

    def _titles(self) -> list[tuple[str, str]]:
        """Titles and descriptions of pages that the model has read many times."""
        path = self.served.folder("tokens") / "documents.jsonl" if self.served else Path()
        rows = read_jsonl(path, Placement) if path.is_file() else ()
        known = (
            (row.title, row.description)
            for row in rows
            if row.role == "flagship" and row.title and row.description
        )
        return list(islice(known, 4)) or _PAGES
