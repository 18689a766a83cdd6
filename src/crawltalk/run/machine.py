"""What this machine is, and whether it is large enough for a recipe."""

import contextlib
import os
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path

from crawltalk.core.errors import TooBig, UserError
from crawltalk.recipe import Machine, Recipe, cost
from crawltalk.recipe.machine import derive_machine

FLOPS_PER_CORE = 1e11
"""Sustained training FLOP/s of one CPU core with bf16 units: a high estimate, so that a recipe is refused only
if it is surely too large.
"""
PATIENCE = 30 * 86400
"""Seconds of pretraining beyond which a recipe is refused on a CPU."""


def memory_bytes(cgroup: str | Path = "/sys/fs/cgroup") -> int:
    """Memory of this machine, or the container's limit where that is lower (control groups of version 2 or 1)."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = Path(cgroup) / name
        text = limit.read_text().strip() if limit.exists() else "max"
        total = min(total, int(text)) if text.isdigit() else total
    return total


def processor() -> str:
    """The processor's model, as the system names it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )


class EnergyMeter:
    """Energy of the processors in joules, from the kernel's counters (powercap: RAPL on Intel and AMD), if they
    can be read.
    """

    def __init__(self, root: str | Path = "/sys/class/powercap") -> None:
        self._packages = [
            path for path in sorted(Path(root).glob("intel-rapl:*")) if path.name.count(":") == 1
        ]
        self._before = self._read()

    def joules(self) -> float | None:
        """Since the meter was made; None if unknown. A counter may have wrapped around once."""
        now = self._read()
        if not now or not self._before:
            return None
        ranges = [int((path / "max_energy_range_uj").read_text()) for path in self._packages]
        return sum((b - a) % size for a, b, size in zip(self._before, now, ranges, strict=True)) / 1e6

    def _read(self) -> list[int]:
        try:
            return [int((path / "energy_uj").read_text()) for path in self._packages]
        except OSError:  # most systems keep it from ordinary users
            return []


def describe_host() -> str:
    """Class of the machine in one line; no host name."""
    cores = derive_machine(Machine()).workers
    return f"{platform.system()} {platform.machine()}, {cores} cores, {memory_bytes() / 2**30:.0f} GiB, {processor()}"


def cache_folder() -> Path:
    """The folder that compiled code is kept in. Raises RuntimeError if this user has no home and XDG_CACHE_HOME is not
    set.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crawltalk"


@contextlib.contextmanager
def writable_cache() -> Iterator[None]:
    """Within the block, compiled code can be kept: where the user's cache cannot be written (there is no home, or a
    read-only one), XDG_CACHE_HOME is a folder that is removed at the end. Raises UserError if there is none.

    It is never one that other users can write into: what lies there is executed.
    """
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK)
    except (OSError, RuntimeError):  # it cannot be made; there is no home
        usable = False
    if usable:
        yield
        return
    before = os.environ.get("XDG_CACHE_HOME")
    try:
        made = tempfile.TemporaryDirectory(prefix="crawltalk-cache-")
    except OSError as error:
        raise UserError(
            f"compiled code can be kept nowhere ({error.strerror}); set XDG_CACHE_HOME to a folder that you may write"
        ) from None
    with made as name:
        os.environ["XDG_CACHE_HOME"] = name
        try:
            yield
        finally:
            os.environ.pop("XDG_CACHE_HOME")
            if before is not None:
                os.environ["XDG_CACHE_HOME"] = before


def check_fit(recipe: Recipe) -> None:
    """Raise TooBig, with the estimate, if this machine cannot hold the model or train it within a month."""
    machine = derive_machine(recipe.machine)
    if machine.force or machine.device == "cuda":
        return
    model, vocab = recipe.pretrain.model, recipe.tokenizer.vocab_size
    if model.depth is None or vocab is None:  # they will follow from the corpus and this machine
        return
    parts = cost.training_bytes(model, vocab, recipe.pretrain.batch_tokens)
    parameters = cost.parameters(model, vocab)
    count = f"{recipe.name} has {parameters / 1e6:,.0f} million parameters"
    out = "take a smaller preset (crawltalk presets), a bigger machine, or --machine.force true"
    need, have = sum(parts.values()), memory_bytes()
    if need > have:
        terms = " + ".join(f"{name} {size / 2**30:.1f}" for name, size in parts.items())
        raise TooBig(
            f"{count}: {terms} = {need / 2**30:.1f} GiB to train, "
            f"and this machine has {have / 2**30:.1f}; {out}"
        )
    tokens = recipe.pretrain.tokens or 0
    flops = cost.training_flops(model, vocab, tokens)
    speed = FLOPS_PER_CORE * (machine.workers or 1)
    if flops > speed * PATIENCE:
        raise TooBig(
            f"{count}: {flops:.1e} FLOP for {tokens / 1e9:.1f} billion tokens / {speed:.0e} FLOP/s of "
            f"{machine.workers} CPU cores = {flops / speed / 86400:,.0f} days; {out}"
        )
