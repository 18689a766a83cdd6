"""The JSON of the labelling page and of the thumbs in the chat.

A task is a list of kinds of labels that a prompt gets, in order: InstructGPT's labelers first write an answer, then
rank what models say. Replies are shown without the name of their model, in an order that differs between labelers.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from starlette.routing import Route

from crawltalk.chat.messages import Message
from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.labels import Candidate, LabelStore, Prompt, read_instructions
from crawltalk.labels.rows import JUDGE, MAX_RANKED, Kind, NewPrompt, Value
from crawltalk.serve.api.errors import ApiError

TASKS: dict[str, Sequence[Kind]] = {
    "write-rank": ("ideal", "ranking"),
    "write": ("ideal",),
    "rank": ("ranking",),
    "edit": ("edit",),
}
NEEDED = {"ranking": 2, "edit": 1}
"""Replies that a label of this kind needs."""
_NO_STORE = (
    "no run is served, and labels need a place: crawltalk serve runs/small, or serve smollm2 --labels FOLDER"
)
Text = Annotated[str, Meta(max_length=100_000)]
Name = Annotated[str, Meta(max_length=200)]
Messages = Annotated[list[Message], Meta(min_length=1, max_length=1000)]
Sampling = Annotated[dict[Name, int | float | str | bool | None], Meta(max_length=30)]
TaskName = Literal["write-rank", "write", "rank", "edit"]


class StateRequest(Struct):
    """What there is to label."""


class NextRequest(Struct):
    """The next prompt for a labeler."""

    labeler: Name
    task: TaskName
    batch: Name = ""
    alone: bool = False
    """Only prompts that nobody else has labelled."""


class PromptsRequest(Struct):
    """Prompts to label."""

    batch: Annotated[str, Meta(min_length=1, max_length=200)]
    prompts: Annotated[list[Messages], Meta(max_length=1000)]


class CandidatesRequest(Struct):
    """Replies of a model to a prompt."""

    labeler: Name
    prompt: Name
    needed: Annotated[int, Meta(ge=1, le=MAX_RANKED)]
    """They are kept only if there are fewer than this."""
    model: Name
    sampling: Sampling
    replies: Annotated[list[Text], Meta(max_length=MAX_RANKED)]


class LabelRequest(Struct):
    labeler: Name
    instructions: Name
    """The version that the labeler was shown."""
    prompt: Name
    value: Value


class UndoRequest(Struct):
    labeler: Name
    task: TaskName
    batch: Name = ""


class ThumbRequest(Struct):
    """A thumb under a reply of the chat."""

    labeler: Name
    messages: Messages
    """The conversation before the reply."""
    reply: Messages
    up: bool | None
    """None: no thumb any more."""
    model: Name = ""
    sampling: Sampling = {}


def label_routes(
    store: LabelStore | None, get: Callable[..., Route], post: Callable[..., Route]
) -> list[Route]:
    """The routes, made by those functions of (path, request, handler). `store`: None if there is no run."""
    handlers = _Handlers(store)
    return [
        get("/api/labels", StateRequest, handlers.state),
        get("/api/labels/next", NextRequest, handlers.next),
        post("/api/labels", LabelRequest, handlers.label),
        post("/api/labels/prompts", PromptsRequest, handlers.prompts),
        post("/api/labels/candidates", CandidatesRequest, handlers.candidates),
        post("/api/labels/undo", UndoRequest, handlers.undo),
        post("/api/labels/thumb", ThumbRequest, handlers.thumb),
    ]


class _Handlers:
    """One method for each route, from its request to what is sent as JSON."""

    def __init__(self, store: LabelStore | None) -> None:
        self._given = store

    @property
    def _store(self) -> LabelStore:
        if self._given is None:
            raise MissingInput(_NO_STORE)
        return self._given

    def state(self, _: StateRequest) -> dict[str, Any]:
        """The instructions and the batches."""
        instructions = read_instructions(self._store.folder)
        return {
            "instructions": {"text": instructions.text, "version": instructions.version},
            "batches": self._store.batches(),
        }

    def next(self, request: NextRequest) -> dict[str, Any]:
        """The next prompt of a task, which step of it is next, and the replies that this step is about."""
        prompt = self._store.next_prompt(
            request.labeler, TASKS[request.task], request.batch, alone=request.alone
        )
        if prompt is None:
            return {"prompt": None} | self._figures(request)
        return self._item(prompt, request)

    def label(self, request: LabelRequest) -> dict[str, str]:
        """Keep a label."""
        instructions = read_instructions(self._store.folder)
        if request.instructions != instructions.version:
            raise ApiError(
                409, "the instructions have changed; reload the page, and read them before you go on"
            )
        labeler = _person(request.labeler)
        return {"id": self._store.add_label(request.prompt, labeler, request.value, instructions)}

    def prompts(self, request: PromptsRequest) -> dict[str, int]:
        """Append prompts to a batch."""
        rows = [NewPrompt(messages) for messages in request.prompts]
        return {"new": self._store.add_prompts(request.batch, rows, "page")}

    def candidates(self, request: CandidatesRequest) -> list[dict[str, Any]]:
        """Keep replies of a model, unless there are enough, and return those that are there."""
        self._store.add_candidates(
            request.prompt,
            [[Message("assistant", reply)] for reply in request.replies],
            request.model,
            request.sampling,
            below=request.needed,
        )
        return self._shown(request.prompt, request.labeler)

    def undo(self, request: UndoRequest) -> dict[str, Any]:
        """Take back the labeler's last label. The prompt is shown again, with what was said."""
        label = self._store.undo(_person(request.labeler))
        if label is None:
            raise MissingInput("there is nothing to undo")
        item = self._item(self._store.prompt(label.prompt), request)
        return item | ({"value": label.value} if label.kind == item["step"] else {})

    def thumb(self, request: ThumbRequest) -> dict[str, str]:
        """Keep a thumb, or take it back."""
        labeler, (messages, reply) = _person(request.labeler), (request.messages, request.reply)
        return {
            "id": self._store.thumb(messages, reply, labeler, request.up, request.model, request.sampling)
        }

    def _item(self, prompt: Prompt, request: NextRequest | UndoRequest) -> dict[str, Any]:
        kinds = TASKS[request.task]
        missing = [kind for kind in kinds if self._store.label(prompt.id, request.labeler, kind) is None]
        return {
            "prompt": {"id": prompt.id, "messages": prompt.messages, "source": prompt.source},
            "step": (missing or kinds)[0],
            "needed": max(NEEDED.get(kind, 0) for kind in missing or kinds),
            "candidates": self._shown(prompt.id, request.labeler),
        } | self._figures(request)

    def _figures(self, request: NextRequest | UndoRequest) -> dict[str, Any]:
        """How far the labeler is, and what the store has from all."""
        progress = self._store.progress(request.labeler, TASKS[request.task], request.batch)
        return {"progress": progress, "counts": self._store.counts()}

    def _shown(self, prompt: str, labeler: str) -> list[dict[str, Any]]:
        """The replies that are ranked, without what would say whose they are."""

        def place(candidate: Candidate) -> bytes:
            return hashlib.sha256(f"{labeler}\0{candidate.id}".encode()).digest()

        first = self._store.candidates(prompt)[:MAX_RANKED]
        return [{"id": one.id, "reply": one.reply} for one in sorted(first, key=place)]


def _person(labeler: str) -> str:
    """The name of a labeler who is no model."""
    name = labeler.strip()
    if name.startswith(JUDGE):
        raise BadInput(f"names that begin with {JUDGE} are those of models; choose another one")
    return name
