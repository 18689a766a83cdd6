"""Benchmarks: one row per comparison. A ratio above 1 means that we are better."""

import json as jsonlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from crawltalk.bench.data import data
from crawltalk.bench.journey import ROWS, journey
from crawltalk.bench.tokenizer import tokenizer
from crawltalk.core.errors import UserError
from crawltalk.run.console import print_table


def bench(
    name: str = "journey",
    *,
    preset: str = "nano",
    peer: Path | None = None,
    seed: int | None = None,
    pages: Path = Path("runs/small/crawl"),
    text: Path = Path("novels.tar.gz"),
    vocabulary: Path = Path("cl100k_base.tiktoken"),
    runs: int = 3,
    seconds: float = 120.0,
    llama_cpp: Path = Path("llama.cpp/build/bin"),
    json: Annotated[bool, Parameter(negative=(), help="Print one JSON line per figure.")] = False,
) -> None:
    """Measure, medians over several runs.

    journey: the whole, stage by stage, alone or against another checkout (--peer); data, tokenizer, pretrain, sft, rl,
    engine, redteam: the parts against their peers; gpu: training and decoding on a GPU.

    Parameters
    ----------
    name
        What to measure: journey, data, tokenizer, pretrain, sft, rl, engine, redteam or gpu; or one row of the journey:
        journey.stages, journey.train_cpu, journey.memory, journey.busy, journey.compile, journey.tests.
    preset
        Preset of the journey, or a TOML file.
    peer
        Another checkout of crawltalk, to measure the journey or the rollouts of rl against. With it, journey has all
        of these rows.
    seed
        The only seed of the journey; if absent, each run has another one.
    pages
        HTML or WARC files to measure the data stage's parts on.
    text
        A folder of .txt files, or a .tar.gz of such, to train tokenizers and models on and to encode.
    vocabulary
        A .tiktoken file or tokenizer.json to encode with.
    runs
        Each figure is the median of so many runs.
    seconds
        CPU seconds that the baseline of pretraining trains for.
    llama_cpp
        The folder of llama.cpp's programs, to decode with.
    """
    bench, _, row = name.partition(".")
    if bench not in BENCHES or (row and (bench != "journey" or row not in ROWS)):
        rows_of_journey = ", ".join(f"journey.{one}" for one in ROWS)
        raise UserError(
            f"no benchmark is called {name!r}; there are: {', '.join(BENCHES)}; {rows_of_journey}"
        )
    chosen = (row,) if row else ("stages",) if peer is None else ROWS
    rows = {
        "journey": lambda: journey(chosen, preset, peer, runs, seed),
        "data": lambda: data(pages, runs),
        "tokenizer": lambda: tokenizer(text, vocabulary, runs),
        "pretrain": lambda: _pretrain(text, runs, seconds),
        "sft": lambda: _sft(runs),
        "rl": lambda: _rl(runs, peer),
        "engine": lambda: _engine(llama_cpp, runs),
        "redteam": lambda: _redteam(runs),
        "gpu": _gpu,
    }[bench]()
    if json:
        for row in rows:
            print(jsonlib.dumps(row), flush=True)
    else:
        print_table(_COLUMNS, [["" if row[key] is None else row[key] for key in _COLUMNS] for row in rows])


BENCHES = ("journey", "data", "tokenizer", "pretrain", "sft", "rl", "engine", "redteam", "gpu")
_COLUMNS = ("name", "unit", "ours", "peer", "ratio", "min", "max", "runs")


def _pretrain(text: Path, runs: int, seconds: float) -> Iterator[dict[str, Any]]:
    from crawltalk.bench.pretrain import pretrain  # they load torch
    from crawltalk.bench.time_to_loss import time_to_loss

    yield from pretrain(runs)
    yield from time_to_loss(text, runs, seconds)


def _sft(runs: int) -> Iterator[dict[str, Any]]:
    from crawltalk.bench.sft import sft  # it loads torch

    yield from sft(runs)


def _rl(runs: int, peer: Path | None) -> Iterator[dict[str, Any]]:
    from crawltalk.bench.rl import rl  # it loads torch

    yield from rl(runs, peer)


def _engine(llama_cpp: Path, runs: int) -> Iterator[dict[str, Any]]:
    from crawltalk.bench.engine import engine  # it loads torch

    yield from engine(llama_cpp, runs)


def _redteam(runs: int) -> Iterator[dict[str, Any]]:
    from crawltalk.bench.redteam import redteam  # it loads torch

    yield from redteam(runs)


def _gpu() -> Iterator[dict[str, Any]]:
    from crawltalk.bench.gpu import gpu  # it loads torch

    yield from gpu()
