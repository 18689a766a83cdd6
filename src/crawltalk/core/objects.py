"""Objects by name, so that a recipe or the table of stages can refer to what is imported only when needed."""

import importlib
from typing import Any


def load_object(path: str) -> Any:
    """Import `"package.module:name"`. Raises ImportError, AttributeError, or ValueError for another form."""
    module, colon, name = path.partition(":")
    if not colon:
        raise ValueError(f"{path!r} has no colon")
    return getattr(importlib.import_module(module), name)
