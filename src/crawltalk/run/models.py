"""What a person calls a model: a run, a stage of it, an imported model, or a folder."""

from pathlib import Path

from crawltalk.core.errors import MissingInput

MODELS = Path("models")
"""Where `crawltalk import` puts weights."""


def model_folder(name: str | Path, prefer: tuple[str, ...] = ("sft", "pretrain")) -> Path:
    """The folder with `config.json` that a name stands for.

    `runs/small` -> its assistant, or its base model while there is no assistant; `small` -> `runs/small`;
    `smollm2` -> `models/smollm2`; any other folder in Hugging Face's layout as it is. Raises MissingInput.
    """
    for base in (Path(name), Path("runs") / name, MODELS / name):
        for folder in (base, *(base / stage for stage in prefer)):
            if (folder / "config.json").exists():
                return folder
        if (base / "recipe.toml").exists():
            raise MissingInput(f"{base} has no {prefer[0]} yet; make it with: crawltalk run {base}")
    hint = f"crawltalk import {name}" if str(name) == "smollm2" else "crawltalk run small"
    raise MissingInput(f"there is no model at {name}, runs/{name} or {MODELS / name}; make one with: {hint}")
