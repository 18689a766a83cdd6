"""Verbs that let a model talk."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.columns import Columns
from rich.markup import escape
from rich.panel import Panel

from crawltalk.core.console import console
from crawltalk.core.errors import UserError
from crawltalk.core.names import model_folder
from crawltalk.core.types import Message

if TYPE_CHECKING:
    from crawltalk.engine import Engine, Sampling

Model = Annotated[str, Parameter(help="A run, an imported model (smollm2), or a folder in Hugging Face's layout.")]


def generate(
    prompt: str,
    *,
    model: Model = "runs/small",
    samples: int = 3,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    max_tokens: int = 64,
    seed: int = 0,
    assistant: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Let the base model continue a text; several samples side by side.

    Parameters
    ----------
    assistant
        Put the text into a transcript of a helpful assistant, whose turn comes next, and show that turn.
    """
    from crawltalk.engine.prompts import as_assistant, first_line

    sampling = _sampling(temperature, top_k, top_p, max_tokens, seed)
    engine = _load(model_folder(model, prefer=("pretrain",)))
    ids = [engine.tokenizer.eot, *engine.tokenizer.encode(as_assistant([], prompt) if assistant else prompt)]
    texts = [engine.tokenizer.decode(tokens) for tokens in engine.generate([ids] * samples, sampling)]
    if assistant:
        prompt, texts = f"{prompt}\n", [first_line(text) for text in texts]
    if console.is_terminal:
        console.print(Columns([Panel(f"[bold]{escape(prompt)}[/]{escape(text)}", width=44) for text in texts]))
        return
    for index, text in enumerate(texts):
        print(f"--- sample {index}\n{prompt}{text}")


def chat(
    message: str | None = None,
    *,
    model: Model = "runs/small",
    system: str | None = None,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    max_tokens: int = 128,
    seed: int = 0,
) -> None:
    """Talk with the assistant: one answer to a message, else a conversation (/clear, /quit), or an answer per line."""
    sampling = _sampling(temperature, top_k, top_p, max_tokens, seed)
    engine = _load(model_folder(model))
    start = [Message("system", system)] if system else []
    if message is not None:
        _answer(engine, [*start, Message("user", message)], sampling)
    elif sys.stdin.isatty():
        _converse(engine, start, sampling)
    else:
        for line in sys.stdin:
            if line.strip():
                _answer(engine, [*start, Message("user", line.strip())], sampling)


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
    dropped = engine.prompt(messages)[1]
    if dropped:
        console.print(f"[dim]the oldest {dropped} messages no longer fit into the context of {engine.context} tokens")
    reply = ""
    for piece in engine.stream_reply(messages, sampling):
        reply += piece
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return reply


def _sampling(temperature: float, top_k: int, top_p: float, max_tokens: int, seed: int) -> "Sampling":
    from crawltalk.engine import Sampling

    if temperature < 0 or top_k < 0 or not 0 < top_p <= 1 or max_tokens < 1:
        raise UserError("temperature and top-k are 0 or more, top-p is above 0 and at most 1, max-tokens is 1 or more")
    return Sampling(temperature=temperature, top_k=top_k, top_p=top_p, max_tokens=max_tokens, seed=seed)


def _load(folder: Path) -> "Engine":
    from crawltalk.engine import Engine

    return Engine.load(folder)
