"""What decides a stage of posttraining besides the recipe: the model that it starts from or that writes questions, and
the user's files. Imports quickly, since `status` calls it.
"""

from pathlib import Path
from typing import Any

from crawltalk.core.errors import BadRecipe, MissingInput
from crawltalk.core.files import stamp
from crawltalk.models import FILES, model_folder
from crawltalk.recipe import Dpo, Grpo, Sft, Synthesize
from crawltalk.run.manifest import read_manifest


def external_inputs(config: Sft | Dpo | Grpo | Synthesize) -> dict[str, Any]:
    """Path, size and modification time (ns) of each file of conversations or preferences; of a model the fingerprint of
    the stage that made it, else its files. Of what is missing only the name: the stage reports that it is missing. Of
    an endpoint nothing is known.
    """
    if isinstance(config, Synthesize):
        name, files = config.model, []
    elif isinstance(config, Sft):
        name, files = config.base, [stamp(file.path) for file in config.data.values()]
    else:
        name, files = config.base, [stamp(path) for path in config.data] if isinstance(config, Dpo) else []
    result: dict[str, Any] = {"files": files} if files else {}
    if name and "://" not in name:
        result["model"] = _model(name)
    return result


def _model(name: str) -> Any:
    try:
        folder = model_folder(name, prefer=("base", "assistant"))
    except MissingInput:
        return name
    manifest = read_manifest(folder)
    if manifest is not None:
        return manifest.fingerprint
    return [stamp(path) for path in sorted({path for pattern in FILES for path in folder.glob(pattern)})]


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
