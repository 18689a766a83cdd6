"""bench engine: decoding against llama.cpp and transformers, what a cached prefix saves, what HTTP costs, two
hundred streams at once.

`python -m crawltalk.bench.engine FOLDER PRECISION ROWS` is one process of ours. It prints tokens a second.
"""

import asyncio
import contextlib
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from crawltalk.bench.data import figure
from crawltalk.bench.engine_peers import PROMPT, REPLY, SHAPES, THREADS, llama_cpp, transformers, write_model
from crawltalk.bench.engine_trace import trace
from crawltalk.core.errors import UserError
from crawltalk.engine import Engine, Sampling
from crawltalk.engine.backends.cpu import Precision
from crawltalk.engine.engine import make_backend
from crawltalk.model.hf import load_model
from crawltalk.tokenizer import Tokenizer

ROWS = (1, 8, 32)
PREFIX, QUESTION = 1000, 8
"""Tokens of the prompt that two requests share, and tokens that follow them."""
STREAMS, STREAMED = 200, 64
"""Streams at once, and the tokens of each."""
ALONE = 800
"""Tokens of a single stream over HTTP."""


def engine(binaries: str | Path, runs: int) -> Iterator[dict[str, Any]]:
    """One figure per comparison, as soon as it is known. `binaries`: the folder of llama.cpp's programs."""
    with tempfile.TemporaryDirectory(prefix="crawltalk-bench-") as name:
        written = {size: write_model(size, Path(name)) for size in SHAPES}
        yield from _http(written["4M"].folder, runs)
        yield _prefix(written["14M"].folder, runs)
        yield from trace(runs)
        for size, model in written.items():
            for rows in ROWS:
                ours = {
                    precision: _speeds(model.folder, precision, rows, runs)
                    for precision in ("int8", "bfloat16", "float32")
                }
                parts = f"engine.decode_{size}_b{rows}"
                theirs = llama_cpp(binaries, model.gguf, rows, runs)
                yield figure(
                    f"{parts}_llama_cpp",
                    "tokens/s",
                    ours["int8"],
                    theirs,
                    "llama.cpp, q8_0; ours int8",
                    THREADS,
                )
                theirs = transformers(model.folder, rows, runs)
                for precision, speeds in ours.items():
                    label = f"transformers' generate, bf16 or fp32; ours {precision}"
                    yield figure(f"{parts}_transformers", "tokens/s", speeds, theirs, label, THREADS)


def _speeds(folder: Path, precision: str, rows: int, runs: int) -> list[float]:
    command = [sys.executable, "-m", "crawltalk.bench.engine", str(folder), precision, str(rows)]
    speeds = []
    for _ in range(runs):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise UserError(
                f"decoding in {precision} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
            )
        speeds.append(float(done.stdout))
    return speeds


def _load(folder: str | Path, precision: Precision, cache_bytes: int | None = None) -> Engine:
    """An engine without int8's check of the perplexity: that of random weights says nothing."""
    torch.set_num_threads(THREADS)
    model = load_model(folder)
    return Engine(model, Tokenizer.load(folder), make_backend(model, precision, cache_bytes))


def main(folder: str | Path, precision: Precision, rows: int) -> None:
    """Time the replies from when every row has its first token, the second time.

    As llama.cpp's, the cache is as large as the rows need, and its memory has been touched before.
    """
    shape = load_model(folder).shape
    each = 2 * shape.layers * shape.kv_heads * shape.head_dim * (4 if precision == "float32" else 2)
    engine = _load(folder, precision, cache_bytes=(rows + 1) * (PROMPT + REPLY) * each)
    prompts = torch.randint(0, 256, (2, rows, PROMPT), generator=torch.Generator().manual_seed(0)).tolist()
    speeds = [_speed(engine, some) for some in prompts]
    print(speeds[-1])


def _speed(engine: Engine, prompts: list[list[int]]) -> float:
    """Tokens a second of all rows."""
    sampling = Sampling(temperature=0.0, max_tokens=REPLY)
    begun, generated, began = set[int](), 0, 0.0
    for output in engine.run([engine.request(prompt, sampling, frozenset()) for prompt in prompts]):
        if len(begun) == len(prompts):
            generated += len(output.tokens)
        begun.add(output.request.id)
        if len(begun) == len(prompts) and not began:
            began = time.perf_counter()
    return generated / (time.perf_counter() - began)


def _prefix(folder: Path, runs: int) -> dict[str, Any]:
    """Milliseconds to the first token, with and without the prompt's beginning in the cache."""
    engine = _load(folder, "float32")
    generator = torch.Generator().manual_seed(0)
    cold, warm = [], []
    for _ in range(runs + 1):
        prefix = torch.randint(0, 256, (PREFIX,), generator=generator).tolist()
        for times in (cold, warm):
            prompt = prefix + torch.randint(0, 256, (QUESTION,), generator=generator).tolist()
            began = time.perf_counter()
            engine.generate([prompt], Sampling(temperature=0.0, max_tokens=1), frozenset())
            times.append(1000 * (time.perf_counter() - began))
    return figure(
        "engine.prefix",
        "ms",
        warm[1:],
        cold[1:],
        f"itself, {PREFIX:,} tokens of the prompt not in the cache",
        THREADS,
    )


class Streamed(NamedTuple):
    """One stream, as its client measured it."""

    seconds: float
    first: float
    """Seconds to the first byte."""
    tokens: int


async def _stream(port: int, tokens: int, number: int) -> Streamed:
    """One streamed completion, read as it comes. Raises UserError for any other answer."""
    request = {
        "model": "model",
        "prompt": [1 + number % 200, 2, 3],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
    }
    # nothing ends early
    request |= {"logit_bias": {"4088": -100, "4091": -100}, "stream_options": {"include_usage": True}}
    body = json.dumps(request).encode()
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        % len(body)
        + body
    )
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head:
        raise UserError(f"the server answered {head[:100]!r}")
    received, first = b"", 0.0
    while part := await reader.read(65536):
        first = first or time.perf_counter()
        received += part
    writer.close()
    counts = re.findall(rb'"completion_tokens":(\d+)', received)
    if b"[DONE]" not in received or not counts:
        raise UserError(f"the stream ended early: {received[-200:]!r}")
    return Streamed(time.perf_counter() - began, first - began, int(counts[-1]))


@contextlib.contextmanager
def _server(folder: Path, precision: str) -> Iterator[int]:
    """A server of its own process; its port."""
    command = [sys.executable, "-m", "crawltalk.bench.engine", "serve", str(folder), precision]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


def serve(folder: str | Path, precision: Precision) -> None:
    """Serve one model; print the port."""
    from crawltalk.engine.service import Service
    from crawltalk.serve import Settings, make_app, run
    from crawltalk.serve.http.server import listen

    app = make_app({"model": Service(_load(folder, precision), queue=STREAMS)}, Settings())
    with listen("127.0.0.1", 0) as listening:
        print(listening.getsockname()[1], flush=True)
        run(app, listening, grace=1.0)


def _http(folder: Path, runs: int) -> Iterator[dict[str, Any]]:
    """What a token costs over HTTP and without it; many streams at once."""
    for precision in ("float32", "int8"):
        alone = _load(folder, precision)
        sampling = Sampling(temperature=0.0, max_tokens=ALONE, logit_bias={4088: -100.0, 4091: -100.0})
        direct, over_http = [], []
        with _server(folder, precision) as port:
            for _ in range(3 * runs + 1):
                began = time.perf_counter()
                [reply] = alone.generate([[1, 2, 3]], sampling)
                direct.append(1e6 * (time.perf_counter() - began) / len(reply))
                stream = asyncio.run(_stream(port, ALONE, 0))
                over_http.append(1e6 * stream.seconds / stream.tokens)
        label = f"itself without HTTP, {precision}, one stream of {ALONE} tokens"
        yield figure("engine.http_token", "us", over_http[1:], direct[1:], label, THREADS)
        share = statistics.median(over_http[1:]) / statistics.median(direct[1:]) - 1
        yield figure("engine.http_share", "of a token", [share], None, None, THREADS)

    async def many(port: int) -> list[Streamed]:
        return await asyncio.gather(*(_stream(port, STREAMED, number) for number in range(STREAMS)))

    with _server(folder, "float32") as port:
        rounds = [asyncio.run(many(port)) for _ in range(runs + 1)][1:]
    spread = [max(one.seconds for one in seen) / min(one.seconds for one in seen) for seen in rounds]
    yield figure("engine.streams_200", "slowest/fastest", spread, None, None, THREADS)
    speeds = [sum(one.tokens for one in seen) / max(one.seconds for one in seen) for seen in rounds]
    yield figure("engine.streams_200", "tokens/s", speeds, None, None, THREADS)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], sys.argv[3])  # type: ignore[arg-type]
    else:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]))  # type: ignore[arg-type]
