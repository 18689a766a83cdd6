"""What decides the report besides the recipe: the lab's results. Imports quickly, since `status` calls it."""

from pathlib import Path
from typing import Any

from crawltalk.core.files import stamp
from crawltalk.recipe import Report


def external_inputs(config: Report) -> dict[str, Any]:
    """Path, size and modification time (ns) of each result that the recipe's folder of the lab has."""
    return (
        {"lab": [stamp(path) for path in sorted(Path(config.lab).glob("*/result.json"))]}
        if config.lab
        else {}
    )
