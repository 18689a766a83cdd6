"""Objects by name, so that a recipe or the table of stages can refer to what is imported only when needed."""

import importlib
from typing import Any


def load_object(path: str) -> Any:
    """Import `"package.module:name"`."""
    module, name = path.split(":")
    return getattr(importlib.import_module(module), name)
