"""The verbs generate and chat."""

import json as jsonlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from cyclopts import Parameter
from rich.columns import Columns
from rich.markup import escape
from rich.panel import Panel

from crawltalk.chat.messages import Message, text_of
from crawltalk.core.errors import ContextOverflow, UserError
from crawltalk.core.printable import harmless
from crawltalk.models import is_base_model, model_folder
from crawltalk.run.console import console, errors
from crawltalk.run.folder import RunFolder, find_run
from crawltalk.tasks.scoring import spoken
from crawltalk.verbs.arguments import read_text
from crawltalk.verbs.thoughts import ThoughtReader

if TYPE_CHECKING:
    from crawltalk.engine import Engine, Sampling
    from crawltalk.tools.answers import Answerer

Model = Annotated[
    str, Parameter(help="A run, an imported model (smollm2), or a folder in Hugging Face's layout.")
]
Precision = Annotated[
    Literal["float32", "bfloat16", "int8"],
    Parameter(help="Type of the weights; int8 is refused if it makes the model's perplexity 0.5 % higher."),
]
Text = Annotated[str, Parameter(allow_leading_hyphen=True)]
Json = Annotated[bool, Parameter(negative=(), help="Print one JSON object for each answer instead.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How tokens are sampled."""

    temperature: float | None = None
    """0 takes the likeliest token."""
    top_k: int = 0
    """Only the k likeliest tokens (0: all)."""
    top_p: float = 1.0
    """Only the fewest tokens whose probability reaches p."""
    min_p: float = 0.0
    """Only tokens of at least this share of the likeliest one's probability."""
    repetition_penalty: float = 1.0
    """Above 1: tokens that occurred are less likely to occur again."""
    max_tokens: int | None = None
    """The most tokens of an answer."""
    stop: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    """Text that ends an answer; may be given more than once."""
    seed: int = 0
    """The same seed gives the same answer."""

    def sampling(self, temperature: float, max_tokens: int) -> "Sampling":
        """The sampling settings, with these defaults where none were given."""
        from crawltalk.engine import Sampling

        return Sampling(
            temperature=temperature if self.temperature is None else self.temperature,
            max_tokens=max_tokens if self.max_tokens is None else self.max_tokens,
            **{
                name: getattr(self, name)
                for name in ("top_k", "top_p", "min_p", "repetition_penalty", "stop", "seed")
            },
        )


def generate(
    prompt: Text,
    *,
    model: Model = "runs/small",
    samples: int = 3,
    options: SamplingOptions = SamplingOptions(),
    precision: Precision = "float32",
    assistant: Annotated[bool, Parameter(negative=())] = False,
    json: Json = False,
) -> None:
    """Let the base model continue a text (-: the text on standard input); several samples side by side.

    Parameters
    ----------
    prompt
        The text to continue; `-` reads it from standard input.
    samples
        How many continuations.
    assistant
        Put the text into a transcript as a question to a helpful assistant, and show the assistant's turn.
    """
    from crawltalk.chat.prompts import as_assistant, first_line

    if samples < 1:
        raise UserError("--samples is at least 1")
    sampling = options.sampling(0.8, 64)
    prompt = read_text(prompt, "prompt")
    engine = _load(model_folder(model, prefer=("base",)), precision)
    ids = engine.truncate(
        [*engine.renderer.begin, *engine.tokenizer.encode(as_assistant([], prompt) if assistant else prompt)]
    )
    texts = [""] * samples
    for output in engine.run([engine.request(ids, sampling, samples=samples)]):
        texts[output.index] += output.text
    if assistant:
        prompt, texts = f"{prompt}\n", [first_line(text) for text in texts]
    if json:
        print(jsonlib.dumps({"prompt": prompt, "samples": texts}, ensure_ascii=False))
    elif console.is_terminal:
        console.print(
            Columns(
                [
                    Panel(f"[bold]{escape(harmless(prompt))}[/]{escape(harmless(text))}", width=44)
                    for text in texts
                ]
            )
        )
    else:
        for index, text in enumerate(texts):
            print(f"--- sample {index}\n{prompt}{text}")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ToolOptions:
    """What the assistant may use."""

    tools: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    """What the assistant may call, between commas: calculator, python, search (in the run's documents), fetch.
    python:cpython and python:monty choose the sandbox.
    """
    allow: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    """The beginning of addresses that fetch may get; may be given again."""
    call_first: Annotated[bool, Parameter(negative=())] = False
    """The assistant begins with a call. Small models do not call on their own."""
    documents: str | None = None
    """The run whose documents the tool search looks through: the model's own, unless given."""


def chat(
    message: Text | None = None,
    *,
    model: Model = "runs/small",
    system: str | None = None,
    search: str | None = None,
    options: SamplingOptions = SamplingOptions(),
    tool_options: ToolOptions = ToolOptions(),
    precision: Precision = "float32",
    json: Json = False,
) -> None:
    """Talk with the assistant: one answer to a message (-: the text on standard input), else a
    conversation (/help).

    If standard input is not a terminal, each of its lines gets an answer. A run that has the stage synthesize answers
    each question from its pages, cites them, and declines where it finds nothing.

    Parameters
    ----------
    search
        A run: the model answers from the pages of this one.
    """
    sampling = options.sampling(0.0, 128)
    if message is not None:
        message = read_text(message, "message")
        if os.path.exists(os.path.join(message, "recipe.toml")):
            raise UserError(
                f"{message} is a run, not a message; talk with it: crawltalk chat --model {message}"
            )
    if pages := _pages(model, search, tool_options.tools):
        reads = search is not None or bool(
            pages.recipe().sft.base
        )  # a model as small as the run's own cannot
        _answer_from(pages, model if reads else None, sampling, precision, message, json)
        return
    folder = model_folder(model)
    if is_base_model(folder):
        note = f"{folder} is a base model: it continues texts, and never learned to answer"
        errors.print(f"[yellow]{escape(note)}", soft_wrap=True)
    engine = _load(folder, precision)
    if engine.renderer.notice:
        errors.print(f"[yellow]{escape(engine.renderer.notice)}", soft_wrap=True)
    answerer = _answerer(engine, model, tool_options)
    start = [Message("system", system)] if system else []
    try:
        if message is None and sys.stdin.isatty() and not json:
            _converse(engine, answerer, start, sampling)
            return
        for text in _lines() if message is None else (message,):
            messages = [*start, Message("user", text)]
            if json:
                _answer_as_json(engine, answerer, messages, sampling)
            else:
                _answer(engine, answerer, messages, sampling)
    finally:
        answerer.close()


def _answerer(engine: "Engine", model: str, options: ToolOptions) -> "Answerer":
    """The tools, after saying what a person should know of them. Raises UserError."""
    from crawltalk.tools.answers import Answerer
    from crawltalk.tools.toolbox import Surroundings

    runs = [run for run in (RunFolder(model), RunFolder(Path("runs") / model)) if run.exists()]
    run = find_run(options.documents) if options.documents is not None else next(iter(runs), None)
    around = Surroundings(run=run, allowed=options.allow, context=engine.context)
    answerer = Answerer(options.tools, around, call_first=options.call_first)
    for notice in answerer.notices:
        errors.print(f"[dim]{escape(notice)}", soft_wrap=True)
    return answerer


def _pages(model: str, search: str | None, tools: Sequence[str]) -> RunFolder | None:
    """The run whose pages are searched: the one that is named, or that of the model, if it has questions of its own and
    no tools are asked for.
    """
    if search is not None:
        return find_run(search)
    run = find_run(model)
    return run if not tools and run.exists() and run.manifest("synthesize") else None


def _answer_from(
    run: RunFolder,
    reader: str | None,
    sampling: "Sampling",
    precision: Precision,
    message: str | None,
    json: bool,
) -> None:
    """Answer the message, or each line of the terminal or of standard input, from a run's pages."""
    from crawltalk.retrieval.passages import Passages
    from crawltalk.tools.grounded import GroundedAssistant

    engine = _load(model_folder(reader), precision) if reader else None

    def read(messages: Sequence[Message]) -> str:
        assert engine is not None
        try:
            return engine.reply(messages, sampling)
        except ContextOverflow:  # a small context: the passage's own sentence is the answer
            return ""

    assistant = GroundedAssistant(Passages.of_run(run), read if engine else None)
    for text in _questions() if message is None else (message,):
        answer = assistant.answer(text)
        if json:
            row = {"message": text, "reply": answer.text, "citations": msgspec.to_builtins(answer.citations)}
            print(jsonlib.dumps(row, ensure_ascii=False), flush=True)
            continue
        print(harmless(answer.text) + "".join(f" [{index + 1}]" for index in range(len(answer.citations))))
        for index, citation in enumerate(answer.citations):
            console.print(
                f"[dim]\\[{index + 1}] {escape(harmless(f'{citation.title} · {citation.url}'))}",
                soft_wrap=True,
            )
            console.print(f"[dim]    “{escape(harmless(citation.quote))}”", soft_wrap=True)


def _questions() -> Iterator[str]:
    """The lines that a person types, or those of standard input."""
    if not sys.stdin.isatty():
        yield from _lines()
        return
    console.print("[dim]Ask about the pages; Ctrl-D ends it.")
    while True:
        try:
            text = console.input("[bold cyan]you:[/] ").strip()
        except (EOFError, KeyboardInterrupt):
            return
        if text:
            yield text


def _lines() -> Iterator[str]:
    """The lines of standard input that are not blank."""
    lines = (line.decode("utf-8", "replace").strip() for line in sys.stdin.buffer)
    return (line for line in lines if line)


_HELP = """/help   this list
/clear  forget the conversation
/quit   end it (so does Ctrl-D)
Ctrl-C  end the answer"""


def _converse(engine: "Engine", answerer: "Answerer", start: list[Message], sampling: "Sampling") -> None:
    console.print(f"[dim]{_HELP}")
    messages = list(start)
    while True:
        try:
            text = console.input("[bold cyan]you:[/] ").strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            console.print("\n[dim]/quit or Ctrl-D ends the conversation")
            continue
        if text == "/quit":
            return
        if text == "/clear":
            messages = list(start)
        elif text.startswith("/") and " " not in text:
            console.print(f"[dim]{_HELP}")
        elif text:
            try:
                with _interruption() as interrupted:
                    messages = _answer(
                        engine, answerer, [*messages, Message("user", text)], sampling, interrupted
                    )
            except UserError as error:  # a message that is too long ends the turn, not the conversation
                console.print(f"[yellow]{escape(str(error))}")


def _answer(
    engine: "Engine",
    answerer: "Answerer",
    messages: list[Message],
    sampling: "Sampling",
    interrupted: Event | None = None,
) -> list[Message]:
    """Stream one answer to the terminal, until it is interrupted. Returns the conversation with it, or without its
    question if nothing was answered.
    """
    from crawltalk.tools.loop import converse
    from crawltalk.tools.tool import ToolResult

    dropped = engine.chat_prompt(messages)[1]
    if dropped:
        console.print(
            f"[dim]the oldest {dropped} messages no longer fit into the context of {engine.context} tokens"
        )
    episode = answerer.begin(messages)
    reply, screen = "", _Screen()
    for event in converse(lambda episode: engine.stream_parts(episode, sampling), episode):
        if isinstance(event, str):
            reply += event
            screen.write(event)
        elif isinstance(event, ToolResult):
            console.print(f"[dim]= {escape(harmless(event.text.shown))}", soft_wrap=True, highlight=False)
        else:
            call = event.function
            screen.end()
            console.print(
                f"{chr(10) if reply else ''}[dim]{escape(harmless(f'{call.name} {call.arguments}'))}",
                soft_wrap=True,
                highlight=False,
            )
        if interrupted and interrupted.is_set():
            if not episode.finished:
                episode.messages += [Message("assistant", reply)] if reply else []
            break
    screen.end()
    sys.stdout.write("\n")
    return list(map(_without_thought, episode.messages)) if reply else messages[:-1]


class _Screen:
    """Writes a reply while it comes. On a terminal what the model thinks is dim, without its marks."""

    def __init__(self) -> None:
        self._reader = ThoughtReader()
        self._thought = False

    def write(self, text: str, *, final: bool = False) -> None:
        if console.is_terminal:  # a page that was read may have told the model to steer it
            parts = [(kind, harmless(part)) for kind, part in self._reader.read(text, final=final)]
        else:
            parts = [("said", text)]
        for kind, part in parts:
            if kind == "thought":
                console.print(part, style="dim", end="", markup=False, highlight=False, soft_wrap=True)
            else:
                sys.stdout.write(f"\n{part}" if self._thought else part)
            self._thought = kind == "thought"
        sys.stdout.flush()

    def end(self) -> None:
        """A message ends; the next one may begin with a thought, too."""
        self.write("", final=True)
        self._reader, self._thought = ThoughtReader(), False


def _without_thought(message: Message) -> Message:
    """What later turns are told of it."""
    said = spoken(text_of(message)).lstrip() if message.role == "assistant" and not message.tool_calls else ""
    return Message("assistant", said) if said else message


def _answer_as_json(
    engine: "Engine", answerer: "Answerer", messages: list[Message], sampling: "Sampling"
) -> None:
    """Print one answer as a line of JSON, with what was called and found, if anything."""
    from crawltalk.tools.loop import converse

    episode = answerer.begin(messages)
    begun = len(episode.messages)
    parts = list(converse(lambda episode: engine.stream_parts(episode, sampling), episode))
    line = {
        "message": messages[-1].content,
        "reply": "".join(part for part in parts if isinstance(part, str)),
    }
    if episode.tools:
        line["messages"] = msgspec.to_builtins(episode.messages[begun:])
    print(jsonlib.dumps(line, ensure_ascii=False), flush=True)


@contextmanager
def _interruption() -> Iterator[Event]:
    """An event that the first Ctrl-C sets, so that the decoder finishes its step. The second interrupts."""
    event = Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def _load(folder: Path, precision: Precision) -> "Engine":
    from crawltalk.engine import load_engine

    return load_engine(folder, precision=precision)
