"""What decides a stage besides the recipe: the user's files of conversations and preferences, the model that is
fine-tuned or that writes questions. Imports quickly, since `status` calls it.
"""

from pathlib import Path
from typing import Any

from crawltalk.core.errors import BadRecipe, MissingInput
from crawltalk.core.files import stamp
from crawltalk.models import FILES, model_folder
from crawltalk.recipe import Dpo, Sft, Synthesize
from crawltalk.run.manifest import read_manifest


def external_inputs(config: Sft | Dpo | Synthesize) -> dict[str, Any]:
    """Path, size and modification time (ns) of each file of `[sft.data]` and `dpo.data`, and of the model's files; of a
    `base` that a run made, its fingerprint. Of what is missing only the name: the stage reports that it is missing. Of
    an endpoint nothing is known.
    """
    if isinstance(config, Sft | Dpo):
        paths = list(config.data) if isinstance(config, Dpo) else [file.path for file in config.data.values()]
        files = {"files": [stamp(path) for path in paths]} if paths else {}
        return files | ({"base_files": _base(config.base)} if config.base else {})
    if not config.model or "://" in config.model:
        return {}
    try:
        folder = model_folder(config.model)
    except MissingInput:
        return {"model": config.model}
    return {"model": [stamp(path) for path in sorted(folder.glob("*.safetensors"))]}


def _base(name: str) -> Any:
    try:
        folder = model_folder(name, prefer=("base", "assistant"))
    except MissingInput:
        return name
    manifest = read_manifest(folder)
    if manifest is not None:
        return manifest.fingerprint
    return [stamp(path) for path in sorted({path for file in FILES for path in folder.glob(file)})]


def check_files(config: Sft, key: str = "sft") -> None:
    """Raise MissingInput for the first file of `[sft.data]` that does not exist, BadRecipe for numbers that make no
    mixture; `key` is the section.
    """
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
        if file.epochs <= 0 or (file.weight is not None and not 0 < file.weight <= 1):
            raise BadRecipe(f"{key}.data.{name}: epochs are more than 0, and a weight is from 0 to 1")
    if not 0 <= config.validation < 1 or not 0 <= config.max_refused <= 1:
        raise BadRecipe(f"{key}: validation and max_refused are shares, from 0 to 1")
