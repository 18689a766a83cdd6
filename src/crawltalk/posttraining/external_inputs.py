"""What decides the questions besides the recipe: the model that writes them. Imports quickly, since `status`
calls it.
"""

from typing import Any

from crawltalk.core.errors import MissingInput
from crawltalk.models import model_folder
from crawltalk.recipe import Synthesize


def external_inputs(config: Synthesize) -> dict[str, Any]:
    """Path, size and modification time (ns) of the model's weights. Of a missing model only the name: the stage
    reports that it is missing. Of an endpoint nothing is known.
    """
    if not config.model or "://" in config.model:
        return {}
    try:
        folder = model_folder(config.model)
    except MissingInput:
        return {"model": config.model}
    files = sorted(folder.glob("*.safetensors"))
    return {"model": [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]}
