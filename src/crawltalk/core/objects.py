"""Objects by name: what a recipe or the table of stages refers to is imported only when it is needed."""

import importlib
from typing import Any


def load_object(path: str) -> Any:
    """Import `"package.module:name"`."""
    module, name = path.split(":")
    return getattr(importlib.import_module(module), name)
