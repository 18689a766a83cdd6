"""What decides a fine-tuned model besides the recipe: the model that it starts from, and the user's files. Imports
quickly, since `status` calls it.
"""

from pathlib import Path
from typing import Any

from crawltalk.core.errors import MissingInput
from crawltalk.models import FILES, model_folder
from crawltalk.recipe import Dpo, Sft
from crawltalk.run.manifest import read_manifest


def external_inputs(config: Sft | Dpo) -> dict[str, Any]:
    """Of `base` the fingerprint of the stage that made it, else its files; of `dpo.data` the files: names, sizes and
    modification times (ns). Of what is missing nothing: the stage says so.
    """
    result: dict[str, Any] = {}
    if config.base:
        result["base_files"] = _model(config.base)
    if isinstance(config, Dpo):
        result["data_files"] = [_stamp(Path(path)) for path in config.data if Path(path).exists()]
    return result


def _model(name: str) -> Any:
    try:
        folder = model_folder(name, prefer=("base", "assistant"))
    except MissingInput:
        return None
    manifest = read_manifest(folder)
    if manifest is not None:
        return manifest.fingerprint
    return [_stamp(path) for path in sorted({path for name in FILES for path in folder.glob(name)})]


def _stamp(path: Path) -> list[Any]:
    return [str(path), path.stat().st_size, path.stat().st_mtime_ns]
