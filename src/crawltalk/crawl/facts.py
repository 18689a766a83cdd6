"""What decides the crawl besides the recipe: the user's files themselves. Light, since `status` asks for it."""

import glob
from pathlib import Path
from typing import Any

from crawltalk.core.errors import MissingInput
from crawltalk.core.recipe import Crawl


def source_files(source: str) -> list[Path]:
    """The files that a path or glob names, sorted. Raises MissingInput if there is none."""
    paths = sorted(Path(name).resolve() for name in glob.glob(source, recursive=True) if Path(name).is_file())
    if not paths:
        raise MissingInput(
            f"no file matches crawl.source = {source!r}; give a path or glob of WARC, WET, JSONL or Parquet files, or 'sample'"
        )
    return paths


def facts(config: Crawl) -> dict[str, Any]:
    """Path, size and modification time (ns) of each of the user's files; nothing for the embedded sample."""
    if config.source == "sample":
        return {}
    return {"files": [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in source_files(config.source)]}
