"""A run with documents, as its data stage leaves them."""

from pathlib import Path

import msgspec

from crawltalk.core.documents import write_documents
from crawltalk.core.types import Document
from crawltalk.recipe.layers import load_recipe
from crawltalk.run.folder import RunFolder
from crawltalk.run.manifest import Manifest


def document(number: int, text: str) -> Document:
    fields = {
        "dump": "d",
        "date": "",
        "file_path": "f",
        "language": "en",
        "language_score": 1.0,
        "token_count": 1,
    }
    return Document(text=text, id=f"<{number}>", url=f"https://a.example/{number}", **fields)


def run_with(folder: Path, fingerprint: str, texts: list[str]) -> RunFolder:
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    write_documents(
        data / "documents-00000.parquet", [document(number, text) for number, text in enumerate(texts)]
    )
    manifest = Manifest(
        **{
            "stage": "data",
            "version": 1,
            "fingerprint": fingerprint,
            "config": {},
            "inputs": {},
            "files": [],
            "metrics": {},
        },
        **{
            "started": "",
            "seconds": 0,
            "cpu_seconds": 0,
            "peak_memory_bytes": 0,
            "attempts": 1,
            "versions": {},
            "host": "",
        },
    )
    (data / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    run = RunFolder(folder)
    run.write_recipe(load_recipe("nano"))
    return run
