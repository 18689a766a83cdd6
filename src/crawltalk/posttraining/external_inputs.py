"""What decides a stage of posttraining besides the recipe: the model that it starts from or that writes questions, and
the user's files. Imports quickly, since `status` calls it.
"""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from crawltalk.core.errors import BadRecipe, MissingInput
from crawltalk.core.files import stamp
from crawltalk.models import FILES, model_folder
from crawltalk.recipe import Dpo, Factuality, Grpo, Reward, Rlhf, Sft, Synthesize
from crawltalk.run.folder import find_run
from crawltalk.run.manifest import read_manifest
from crawltalk.run.stage import ModelKind


def external_inputs(config: Factuality | Sft | Dpo | Grpo | Reward | Rlhf | Synthesize) -> dict[str, Any]:
    """Path, size and modification time (ns) of each file of conversations, preferences or problems; of a model the
    fingerprint of the stage that made it, else its files; of documents that are searched the same; and the version of
    reasoning-gym. Of what is missing only the name: the stage reports that it is missing. Of an endpoint nothing is
    known.
    """
    result: dict[str, Any] = {}
    if files := [stamp(path) for path in _files(config)]:
        result["files"] = files
    name = config.model if isinstance(config, Synthesize) else config.base
    if name and "://" not in name:
        result["model"] = _model(name)
    if isinstance(config, Rlhf) and config.reward:
        result["reward"] = _model(config.reward, "reward")
    if isinstance(config, Grpo):
        if any(source.generator for source in config.data.values()):
            result["reasoning-gym"] = _version("reasoning-gym")
        if config.documents:
            manifest = find_run(config.documents).manifest("data")
            result["documents"] = manifest and manifest.fingerprint
    return result


def _files(config: Factuality | Sft | Dpo | Grpo | Reward | Rlhf | Synthesize) -> list[str]:
    match config:
        case Sft(data=files):
            return [path for file in files.values() for path in (file.path, file.exclude) if path]
        case Dpo(data=paths) | Reward(data=paths) | Rlhf(prompts=paths):
            return list(paths)
        case Grpo(data=sources):
            return [path for source in sources.values() for path in (source.path, source.test) if path]
    return []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _model(name: str, *prefer: ModelKind) -> Any:
    try:
        folder = model_folder(name, prefer=prefer or ("base", "assistant"))
    except MissingInput:
        return name
    manifest = read_manifest(folder)
    if manifest is not None:
        return manifest.fingerprint
    return [stamp(path) for path in sorted({path for pattern in FILES for path in folder.glob(pattern)})]


def check_files(config: Sft, key: str = "sft") -> None:
    """Raise MissingInput for a model to start from or a file of `[sft.data]` that does not exist, BadRecipe for numbers
    that make no mixture; `key` is the section.
    """
    if config.base:
        model_folder(config.base)
    for name, file in config.data.items():
        if name == "tasks":
            raise BadRecipe(
                f"{key}.data.tasks: this is what the built-in conversations are called; choose another name"
            )
        if not Path(file.path).is_file():
            raise MissingInput(
                f"{key}.data.{name}: there is no file {file.path}; give one of JSONL, JSON or Parquet: "
                f"--{key}.data.{name}.path FILE"
            )
        if file.exclude and not Path(file.exclude).is_file():
            raise MissingInput(
                f"{key}.data.{name}.exclude: there is no file {file.exclude}; give one with an id in each line, as "
                "crawltalk audit writes it"
            )
        if file.epochs <= 0 or (file.weight is not None and not 0 < file.weight <= 1):
            raise BadRecipe(f"{key}.data.{name}: epochs are more than 0, and a weight is from 0 to 1")
    if not 0 <= config.validation < 1 or not 0 <= config.max_refused <= 1:
        raise BadRecipe(f"{key}: validation and max_refused are shares, from 0 to 1")
