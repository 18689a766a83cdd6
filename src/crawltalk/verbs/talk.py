"""The verbs generate and chat."""

import json as jsonlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.columns import Columns
from rich.markup import escape
from rich.panel import Panel

from crawltalk.chat.messages import Message
from crawltalk.core.errors import UserError
from crawltalk.models import model_folder
from crawltalk.run.console import console

if TYPE_CHECKING:
    from crawltalk.engine import Engine, Sampling

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
    prompt = sys.stdin.read() if prompt == "-" else prompt
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
            Columns([Panel(f"[bold]{escape(prompt)}[/]{escape(text)}", width=44) for text in texts])
        )
    else:
        for index, text in enumerate(texts):
            print(f"--- sample {index}\n{prompt}{text}")


def chat(
    message: Text | None = None,
    *,
    model: Model = "runs/small",
    system: str | None = None,
    options: SamplingOptions = SamplingOptions(),
    precision: Precision = "float32",
    json: Json = False,
) -> None:
    """Talk with the assistant: one answer to a message (-: the text on standard input), else a
    conversation (/clear, /quit).

    If standard input is not a terminal, each of its lines gets an answer.
    """
    sampling = options.sampling(0.0, 128)
    engine = _load(model_folder(model), precision)
    if engine.renderer.notice:
        print(engine.renderer.notice, file=sys.stderr)
    start = [Message("system", system)] if system else []
    if message is None and sys.stdin.isatty() and not json:
        _converse(engine, start, sampling)
        return
    for text in _inputs(message):
        messages = [*start, Message("user", text)]
        if json:
            print(
                jsonlib.dumps(
                    {"message": text, "reply": engine.reply(messages, sampling)}, ensure_ascii=False
                ),
                flush=True,
            )
        else:
            _answer(engine, messages, sampling)


def _inputs(message: str | None) -> Iterator[str]:
    if message is not None:
        yield sys.stdin.read().strip() if message == "-" else message
        return
    yield from (line.strip() for line in sys.stdin if line.strip())


def _converse(engine: "Engine", start: list[Message], sampling: "Sampling") -> None:
    console.print("[dim]/clear forgets the conversation, /quit or Ctrl-D ends it")
    messages = list(start)
    while True:
        try:
            text = console.input("[bold cyan]you:[/] ").strip()
        except EOFError:
            return
        if text == "/quit":
            return
        if text == "/clear":
            messages = list(start)
        elif text:
            try:
                reply = _answer(engine, [*messages, Message("user", text)], sampling)
            except UserError as error:  # a message that is too long ends the turn, not the conversation
                console.print(f"[yellow]{escape(str(error))}")
                continue
            messages += [Message("user", text), Message("assistant", reply)]


def _answer(engine: "Engine", messages: list[Message], sampling: "Sampling") -> str:
    """Stream one reply to the terminal."""
    dropped = engine.chat_prompt(messages)[1]
    if dropped:
        console.print(
            f"[dim]the oldest {dropped} messages no longer fit into the context of {engine.context} tokens"
        )
    reply = ""
    for piece in engine.stream_reply(messages, sampling):
        reply += piece
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return reply


def _load(folder: Path, precision: Precision) -> "Engine":
    from crawltalk.engine import load_engine

    return load_engine(folder, precision=precision)
