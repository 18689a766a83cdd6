"""The models of a run, and the names that stand for a model: a run, a stage of it, an imported model, or a folder."""

import shutil
from pathlib import Path

from crawltalk.core.errors import BadRecipe, MissingInput
from crawltalk.pipeline import stages
from crawltalk.run.folder import RunFolder
from crawltalk.run.stage import ModelKind, Stage

MODELS = Path("models")
"""Where `crawltalk import` puts weights."""
FILES = (
    *("config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json"),
    "encoders.safetensors",
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "merges.txt"),
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja"),
)
"""What belongs to a model in Hugging Face's layout; a stage's folder holds logs and a manifest, too."""
NAMES: dict[ModelKind, str] = {"base": "base model", "assistant": "assistant", "reward": "reward model"}


def models_of_run(run: RunFolder) -> list[tuple[Stage, Path]]:
    """The stages of a run whose models are there, in order, and the folders of these. Raises MissingInput if
    it is no run.
    """
    makers = [stage for stage in stages(run.recipe()) if stage.makes]
    folders = [(stage, run.folder(stage.name)) for stage in makers]
    return [(stage, folder) for stage, folder in folders if (folder / "config.json").exists()]


def model_of_run(run: RunFolder, *kinds: ModelKind) -> Path:
    """The folder of the last model of the first kind that the run has. Raises MissingInput if it has none."""
    models = models_of_run(run)
    for kind in kinds:
        for stage, folder in reversed(models):
            if stage.makes == kind:
                return folder
    raise MissingInput(f"{run.path} has no {NAMES[kinds[0]]} yet; make it with: crawltalk run {run.path}")


def copy_model(folder: Path, target: Path) -> None:
    """Copy the files of a model, as they are."""
    for path in (path for name in FILES for path in folder.glob(name)):
        copy = target / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def model_folder(name: str | Path, prefer: tuple[ModelKind, ...] = ("assistant", "base")) -> Path:
    """The folder with `config.json` that a name stands for.

    `runs/small` -> its assistant, or its base model while there is no assistant; `small` -> `runs/small`;
    `smollm2` -> `models/smollm2`; any other folder in Hugging Face's layout as it is. Raises MissingInput.
    """
    paths = (Path(name), Path("runs") / name, MODELS / name) if len(Path(name).parts) == 1 else (Path(name),)
    for path in paths:
        if (path / "config.json").exists():
            return path
        if RunFolder(path).exists():
            return model_of_run(RunFolder(path), *prefer)
        borrowed = RunFolder(path.parent).folder(path.name)
        if (borrowed / "config.json").exists():
            return borrowed
    hint = f"crawltalk import {name}" if str(name) == "smollm2" else "crawltalk run small"
    looked = " or ".join(map(str, paths))
    raise MissingInput(f"there is no model at {looked}; make one with: {hint}")


def place_of(name: str | Path) -> tuple[RunFolder, str] | None:
    """The run and the stage of a model that a person calls by its run or by `RUN/STAGE`; None for others, and for a
    stage of a run whose recipe cannot be read. It is the model that `model_folder` finds.
    """
    paths = (Path(name), Path("runs") / name) if len(Path(name).parts) == 1 else (Path(name),)
    for path in paths:
        run = RunFolder(path.parent)
        try:
            if run.exists() and path.name in (stage.name for stage, _ in models_of_run(run)):
                return run, path.name
        except BadRecipe:
            return None
        if (path / "config.json").exists():
            return None
        if RunFolder(path).exists():
            return RunFolder(path), model_of_run(RunFolder(path), "assistant", "base").name
    return None


def lineage(run: RunFolder, name: str) -> list[Stage]:
    """The stage of a model and, before it, those whose models it was trained from: each from the last of its inputs
    that continues or answers, as `Job.model` takes it.
    """
    journey = stages(run.recipe())
    chain = [next(stage for stage in journey if stage.name == name)]
    while before := [
        one for one in journey if one.name in chain[0].inputs and one.makes in ("base", "assistant")
    ]:
        chain.insert(0, before[-1])
    return chain


def is_base_model(folder: Path) -> bool:
    """Whether the folder is a run's base model. Of models from elsewhere it is not known, and of a run whose recipe
    cannot be read the name says it.
    """
    run = RunFolder(folder.parent)
    try:
        found = models_of_run(run) if run.exists() else []
    except BadRecipe:
        return folder.name == "pretrain"
    return any(stage.makes == "base" and path == folder for stage, path in found)
