"""The verb that shows how a text is tokenized."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from crawltalk.models import model_folder
from crawltalk.run.console import console, number
from crawltalk.verbs.arguments import read_text

if TYPE_CHECKING:
    from crawltalk.tokenizer import Tokenizer


def tokens(
    text: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    model: str = "runs/small",
    compare: tuple[Path, ...] = (),
    steps: bool = False,
) -> None:
    """Show the tokens of a text: coloured on a terminal, `id TAB piece` lines elsewhere.

    Parameters
    ----------
    text
        The text; `-` reads it from standard input.
    compare
        Other vocabularies to tokenize it with: .tiktoken files, tokenizer.json files or folders.
    steps
        Show how the first word is built from bytes, merge by merge.
    """
    from crawltalk.tokenizer import Tokenizer
    from crawltalk.tokenizer.files import vocabulary_name

    text = read_text(text, "text")
    tokenizer = Tokenizer.load(_folder(model))
    if steps:
        for parts in tokenizer.steps(text):
            print(" ".join(map(_visible, parts)))
        return
    _show(tokenizer, text)
    for path in compare:
        other = Tokenizer.load(path)
        console.print(f"\n{vocabulary_name(path)}: {other.vocab_size:,} tokens", style="bold")
        _show(other, text)


def _show(tokenizer: "Tokenizer", text: str) -> None:
    ids = tokenizer.encode(text)
    if not console.is_terminal:
        for index in ids:
            print(f"{index}\t{tokenizer.decode([index])!r}")
        return
    from rich.text import Text

    line = Text()
    for position, index in enumerate(ids):
        colour = ("bright_cyan", "bright_yellow", "bright_green")[position % 3]
        line.append(_visible(tokenizer.decode_bytes([index])).replace("⏎", "⏎\n"), style=f"black on {colour}")
    console.print(line)
    console.print(f"{' '.join(map(str, ids))}", style="dim")
    console.print(f"{len(ids)} tokens, {number(len(text.encode()) / max(1, len(ids)))} bytes per token")


def _visible(word: bytes) -> str:
    """A token with its white space visible; one that is no whole character, in bytes."""
    try:
        return word.decode().translate({32: "·", 10: "⏎", 9: "⇥", 13: "␍"})
    except UnicodeDecodeError:
        return "".join(f"‹{byte:02x}›" for byte in word)


def _folder(name: str) -> Path:
    """The folder of a model, or of the tokenizer of a run that has no model yet."""
    for folder in (Path(name), Path(name) / "tokenizer", Path("runs") / name / "tokenizer"):
        if (folder / "tokenizer.json").exists():
            return folder
    return model_folder(name)
