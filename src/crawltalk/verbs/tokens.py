"""The verb that shows how a text is cut."""

from pathlib import Path

from crawltalk.core.console import console, number
from crawltalk.core.names import model_folder


def tokens(text: str, *, model: str = "runs/small") -> None:
    """Show the tokens of a text: coloured on a terminal, `id TAB piece` lines elsewhere."""
    from rich.text import Text

    from crawltalk.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(_folder(model))
    ids = tokenizer.encode(text)
    if not console.is_terminal:
        for index in ids:
            print(f"{index}\t{tokenizer.decode([index])!r}")
        return
    line = Text()
    for place, index in enumerate(ids):
        line.append(
            tokenizer.decode([index]), style=f"black on {('bright_cyan', 'bright_yellow', 'bright_green')[place % 3]}"
        )
    console.print(line)
    console.print(f"{' '.join(map(str, ids))}", style="dim")
    console.print(f"{len(ids)} tokens, {number(len(text.encode()) / max(1, len(ids)))} bytes per token")


def _folder(name: str) -> Path:
    """The folder of a model, or of the tokenizer of a run that has no model yet."""
    for folder in (Path(name), Path(name) / "tokenizer", Path("runs") / name / "tokenizer"):
        if (folder / "tokenizer.json").exists():
            return folder
    return model_folder(name)
