"""What verbs do with words of the command line: a text, or `-` for standard input; a name among known ones; where to
write, looked at before the work is done.
"""

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from crawltalk.core.errors import BadInput
from crawltalk.core.files import folder_to_write


def read_text(text: str, name: str) -> str:
    """The text of an argument called `name`; for `-` all of standard input. Bytes that are no UTF-8 become U+FFFD.
    Raises BadInput if there is nothing but white space.
    """
    if text == "-":
        if sys.stdin.isatty():
            print("reading standard input; end it with Ctrl-D", file=sys.stderr)
        text = sys.stdin.buffer.read().decode("utf-8", "replace").strip()
    if not text.strip():
        raise BadInput(f"the {name} is empty; put some words in quotes, or pipe them in and write -")
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def named(kind: str, name: str, names: Sequence[str]) -> str:
    """The name. Raises BadInput, with the nearest one, if there is none such."""
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise BadInput(f"no {kind} is called {name!r}{hint}; there are: {', '.join(names)}")


def file_to_write(path: Path, flag: str = "--out") -> Path:
    """The file, whose folder is made. Raises BadInput if the path is a folder, or a file is in its way."""
    if path.is_dir():
        raise BadInput(f"{path} is a folder; name a file: {flag} {path / 'NAME'}")
    folder_to_write(path.parent, flag)
    return path
