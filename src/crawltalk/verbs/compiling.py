"""Compiling ahead: `python -m crawltalk.verbs.compiling PART ...` compiles what stages need, in processes of its own.

`crawltalk run` starts it beside the first stages of a new checkout. The code goes where numba keeps it anyway
(`cache=True`), and where the decoder keeps its library. Each part has its own functions, so that no two processes
compile the same one; a stage that needs a part waits for it. A part that fails is compiled by its stage.
"""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from pathlib import Path
from types import MappingProxyType
from typing import Any

import crawltalk
from crawltalk.core.files import write_atomically
from crawltalk.recipe.machine import usable_cores
from crawltalk.run.execute import OnEvent
from crawltalk.run.machine import cache_folder
from crawltalk.run.processes import die_with_parent, pool

NEEDS = MappingProxyType(
    {
        "data": ("pages", "texts"),
        "tokenizer": ("tokenizer",),
        "tokens": ("tokenizer",),
        "pretrain": ("decoder",),
        "sft": ("decoder",),
        "grpo": ("decoder",),
        "evals": ("decoder",),
    }
)
"""Stage -> the parts that it uses."""


@contextlib.contextmanager
def compiling_ahead(on_event: OnEvent) -> Iterator[OnEvent]:
    """Gives an `on_event` for `run.execute.build` that passes each event on. When the plan is known, the parts of
    the stages to build are compiled in the background, unless this checkout has them; before a stage starts, it
    waits for the parts of this stage.
    """
    compiler = _Compiler()

    def handle(event: dict[str, Any]) -> None:
        on_event(event)
        if event["event"] == "plan":
            building = [name for name, state in event["stages"].items() if state not in ("fresh", "borrowed")]
            compiler.start([part for name in building for part in NEEDS.get(name, ())])
        elif event["event"] == "start":
            compiler.wait_for(NEEDS.get(event["stage"], ()))

    try:
        yield handle
    finally:
        compiler.end()


class _Compiler:
    """The process in the background; it writes the name of each part that is done."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.waiting: set[str] = set()
        """Parts that are not done."""

    def start(self, parts: list[str]) -> None:
        marks = _Marks()
        missing = [part for part in dict.fromkeys(parts) if not marks.has(part)]
        if not missing:
            return
        command = [sys.executable, "-m", __name__, *missing]
        quiet = subprocess.DEVNULL
        with contextlib.suppress(
            OSError
        ):  # too many processes, too little memory: stages compile for themselves
            self.process = subprocess.Popen(
                command, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet, text=True, start_new_session=True
            )
            self.waiting.update(missing)

    def wait_for(self, parts: tuple[str, ...]) -> None:
        while self.process is not None and not self.waiting.isdisjoint(parts):
            assert self.process.stdout is not None
            line = self.process.stdout.readline()
            if not line:  # it has ended, for whatever reason
                self.waiting.clear()
            self.waiting.discard(line.strip())

    def end(self) -> None:
        if self.process is None:
            return
        if hasattr(os, "killpg"):  # its workers, too: only Linux ends them with it
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class _Marks:
    """Files that say which parts are compiled: one for each part and checkout, with the state of its source."""

    def __init__(self) -> None:
        root = Path(crawltalk.__file__).parent
        files = (file for suffix in ("py", "cpp") for file in sorted(root.rglob(f"*.{suffix}")))
        about = [(file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files]
        self._place = _digest(root, sys.prefix, os.environ.get("NUMBA_CACHE_DIR"))
        self._state = _digest(sys.version, about)

    def _path(self, part: str) -> Path:
        return cache_folder() / f"compiled-{part}-{self._place}"

    def has(self, part: str) -> bool:
        path = self._path(part)
        return path.exists() and path.read_text() == self._state

    def set(self, part: str) -> None:
        self._path(part).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path(part), self._state.encode())


def _digest(*values: object) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:24]


def _compile_pages() -> None:
    from crawltalk.data.extract.main_text import extract

    extract(b"<p>A page.</p>")


def _compile_texts() -> None:
    import numpy as np

    from crawltalk.data.dedup import deduplicate
    from crawltalk.data.filters.urls import blocked_url, write_blocklist
    from crawltalk.data.parts import FACTS
    from crawltalk.data.pipeline import warm_up
    from crawltalk.data.read.charset import damage, to_utf8

    warm_up(lambda html: None)
    to_utf8("<p>Où est la page\u00a0?</p>".encode() + b"\xff")
    damage("Où est la page\u00a0?")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_blocklist(None, folder / "blocklist.npy")
        blocked_url("https://page.example/of/lines", np.load(folder / "blocklist.npy", mmap_mode="r"))
        np.save(folder / "bands.npy", np.zeros((2, 2), np.uint64))
        facts = np.lib.format.open_memmap(folder / "facts.npy", "w+", FACTS, (2,))
        deduplicate([folder / "bands.npy"], facts, folder)


def _compile_tokenizer() -> None:
    from crawltalk.tokenizer.bpe import train

    texts = ["A page of two lines.\nIt has the words of a page, and no more.", "Another page, of a line."]
    tokenizer = train(texts, 280)
    tokenizer.decode_bytes(tokenizer.encode_batch(texts)[0])


def _compile_decoder() -> None:
    from crawltalk.engine.backends.cpu import Unavailable, library

    with contextlib.suppress(Unavailable):  # the decoder says so itself
        library()


PARTS: MappingProxyType[str, Callable[[], None]] = MappingProxyType(
    {
        "pages": _compile_pages,
        "texts": _compile_texts,
        "tokenizer": _compile_tokenizer,
        "decoder": _compile_decoder,
    }
)
"""What is compiled at a time, by one process, and how; in the order of the journey."""


def main(parts: list[str]) -> None:
    """Compile parts, print the name of each that is done, and mark it."""
    die_with_parent()
    marks = _Marks()
    with pool(min(len(parts), usable_cores())) as processes:
        started = {processes.submit(PARTS[part]): part for part in parts}
        for done in as_completed(started):
            part = started[done]
            if done.exception() is None:
                marks.set(part)
            print(part, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
