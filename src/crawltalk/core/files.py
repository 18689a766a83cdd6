"""Files that a crash leaves whole: the old one or the new one, never half of it."""

import io
import os
from pathlib import Path
from typing import Any

from crawltalk.core.errors import BadInput


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, never half of it."""
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_array(path: str | Path, array: Any) -> None:
    """Write a numpy array (.npy, no pickle) in the same way."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomically(path, buffer.getvalue())


def folder_to_write(path: Path, flag: str = "--out") -> Path:
    """The folder, which is made. Raises BadInput if a file is in its way."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise BadInput(
            f"{path} cannot be a folder: a file is in its way; choose another with {flag}"
        ) from None
    return path


def stamp(path: str | Path) -> list[Any]:
    """Path, size and modification time (ns) of a file: what tells that it changed. Of a missing one only the name."""
    path = Path(path)
    return [str(path), path.stat().st_size, path.stat().st_mtime_ns] if path.exists() else [str(path)]
