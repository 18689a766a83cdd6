"""Objects by name, so that a recipe or the table of stages can refer to what is imported only when needed."""

import importlib
import os
import sys
from typing import Any


def load_object(path: str) -> Any:
    """Import `"package.module:name"`; modules in the folder of the command are found, too. Raises ImportError,
    AttributeError, or ValueError for another form.
    """
    module, colon, name = path.partition(":")
    if not colon:
        raise ValueError(f"{path!r} has no colon")
    here = os.getcwd()
    if not {"", here} & set(sys.path):  # `python -m crawltalk` has it, and the installed command does not
        sys.path.append(here)
    return getattr(importlib.import_module(module), name)
