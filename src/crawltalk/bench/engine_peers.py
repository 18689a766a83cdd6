"""bench engine: how fast llama.cpp and transformers decode models of Llama's shape, at their best.

`python -m crawltalk.bench.engine_peers FOLDER DTYPE ROWS` is a process of transformers. It prints tokens a
second.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch

from crawltalk.bench.engine_trace import pair_tokenizer
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import MissingInput, UserError
from crawltalk.model.gguf_export import export_gguf
from crawltalk.model.hf import save_model
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer

THREADS = 2
PROMPT, REPLY = 64, 128
"""Tokens of each row."""
DTYPES = ("bfloat16", "float32")


def _llama(layers: int, width: int, mlp: int, vocabulary: int) -> Shape:
    heads = width // 64
    sizes = {"layers": layers, "width": width, "heads": heads, "kv_heads": heads, "head_dim": 64, "mlp": mlp}
    return Shape(family="llama", vocab_size=vocabulary, context=1024, norm_eps=1e-5, **sizes)


SHAPES = {
    "4M": _llama(4, 256, 768, 4096),
    "14M": _llama(6, 384, 1152, 6144),
    "110M": _llama(12, 768, 2048, 32_000),
}
"""4.5, 13.9 and 109.5 million parameters, embedding and head in one matrix; the last one is that of
llama2.c's stories110M.
"""


class Written(NamedTuple):
    """One model in both forms."""

    folder: Path
    gguf: Path


def write_model(name: str, folder: str | Path) -> Written:
    """A random model of `SHAPES` as a folder in Hugging Face's layout and as a GGUF file of q8_0 beside it."""
    model = Transformer(SHAPES[name])
    model.initialize(0)
    tokenizer = pair_tokenizer(SHAPES[name].vocab_size)
    folder = Path(folder)
    written = Written(folder / name, folder / f"{name}.gguf")
    save_model(model, written.folder, eos=tokenizer.eot)
    ChatRenderer(tokenizer).save(written.folder)
    export_gguf(written.folder, written.gguf, "q8_0")
    return written


def llama_cpp(binaries: str | Path, path: str | Path, rows: int, runs: int) -> list[float]:
    """Tokens a second of all rows together, of llama.cpp's own llama-batched-bench, which feeds random tokens
    and samples none.

    With flash attention, a cache for each row, and two threads: of its ways the best wherever they were
    compared. Build it with -DGGML_NATIVE=ON: its wheels use AVX2 at most.
    """
    tool = Path(binaries) / "llama-batched-bench"
    if not tool.exists():
        raise MissingInput(
            f"{tool} is not there; build llama.cpp, and give the folder of its programs with --llama-cpp"
        )
    # it writes its lines from a thread, and may lose the last one
    repeated = ",".join([str(rows)] * (runs + 1))
    sizes = {
        "-npp": PROMPT,
        "-ntg": REPLY,
        "-npl": repeated,
        "-c": rows * (PROMPT + REPLY),
        "-t": THREADS,
        "-fa": "on",
    }
    command = [str(tool), "-m", str(path), "-no-kvu", *(str(word) for pair in sizes.items() for word in pair)]
    lines = [line for line in _lines([*command, "--output-format", "jsonl"]) if line.startswith("{")]
    return [json.loads(line)["speed_tg"] for line in lines][:runs]


def transformers(folder: str | Path, rows: int, runs: int) -> list[float]:
    """Tokens a second of all rows together, of transformers' `generate`: in bf16 or fp32, whichever has
    the better median.
    """
    command = [sys.executable, "-m", "crawltalk.bench.engine_peers", str(folder)]
    speeds = [[float(_lines([*command, dtype, str(rows)])[-1]) for _ in range(runs)] for dtype in DTYPES]
    return max(speeds, key=statistics.median)


def _lines(command: list[str]) -> list[str]:
    """What a program prints."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise UserError(
            f"{Path(command[0]).name} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
        )
    return done.stdout.strip().splitlines()


@torch.inference_mode()
def main(folder: str | Path, dtype: str, rows: int) -> None:
    """Time the replies, less the time of their first tokens."""
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(THREADS)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    prompts = torch.randint(0, 256, (rows, PROMPT), generator=torch.Generator().manual_seed(0))

    def seconds(tokens: int) -> float:
        began = time.perf_counter()
        model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=False,
            use_cache=True,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=0,
        )
        return time.perf_counter() - began

    seconds(2)
    first = seconds(1)
    print(rows * (REPLY - 1) / (seconds(REPLY) - first))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
