"""What decides the evaluation besides the recipe: the models that stand beside the run's. Imports quickly, since
`status` calls it.
"""

from typing import Any

from crawltalk.core.errors import MissingInput
from crawltalk.models import model_folder
from crawltalk.recipe import Evals


def external_inputs(config: Evals) -> dict[str, Any]:
    """Path, size and modification time (ns) of each model's weights. Of a missing model only the name: the stage
    reports that it is missing.
    """
    found: dict[str, Any] = {}
    for name in config.beside:
        try:
            files = sorted(model_folder(name).glob("*.safetensors"))
        except MissingInput:
            found[name] = []
            continue
        found[name] = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return found
