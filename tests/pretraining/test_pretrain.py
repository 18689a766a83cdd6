"""The pretraining stage on shards of a few thousand tokens."""

import contextlib
import dataclasses
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from crawltalk.core.errors import BadInput
from crawltalk.core.shards import TokenShards
from crawltalk.model.hf import load_model
from crawltalk.model.transformer import Transformer
from crawltalk.pretraining.pretrain import shape_of
from crawltalk.recipe import Model
from crawltalk.tokenizer import Tokenizer
from crawltalk.train.evaluate import bits_per_byte
from support.pretraining import CONFIG, TEXTS, run, write_inputs

SCRIPT = Path(__file__).parents[1] / "support" / "pretraining.py"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrain")
    inputs = write_inputs(folder)
    return inputs, folder / "out", run(inputs, folder / "out")


def final_bytes(out: Path) -> dict[str, bytes | list]:
    """Every file; of the log all but speed."""
    files: dict[str, bytes | list] = {
        path.name: path.read_bytes() for path in out.iterdir() if path.is_file()
    }
    files.pop("log.jsonl")
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    files["log.jsonl"] = [
        {key: value for key, value in row.items() if key != "tokens_per_second"} for row in rows
    ]
    return files


@torch.no_grad()
def test_transformers_loads_the_base_model_and_its_tokenizer(trained):
    _, out, _ = trained
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    ids = Tokenizer.load(out).encode(TEXTS[3])
    assert tokenizer.encode(TEXTS[3], add_special_tokens=False) == ids
    tokens = torch.tensor([ids[:32]])
    torch.testing.assert_close(load_model(out)(tokens), theirs(tokens).logits, atol=1e-4, rtol=1e-4)


def test_what_is_measured_is_what_is_there(trained):
    inputs, out, metrics = trained
    weights = sum(weight.numel() for weight in load_model(out).parameters())
    assert metrics["parameters"] == weights
    assert metrics["tokens"] == 256 * 30
    assert metrics["steps"] == 30
    bpb = bits_per_byte(load_model(out), TokenShards(inputs["tokens"], "val"))
    assert metrics["val_bpb"] == pytest.approx(bpb, abs=1e-4)
    assert bpb < 4.0  # untrained: log2(264) = 8.04 bits a byte
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [10, 10, 20, 20, 30, 30]


@torch.no_grad()
def test_bits_per_byte_is_the_cross_entropy_of_every_token_but_the_first(trained):
    inputs, out, _ = trained
    model, shards = load_model(out), TokenShards(inputs["tokens"], "val")
    tokens = torch.from_numpy(shards.window(0, len(shards)))
    nats = 0.0
    for start in range(0, len(tokens) - 1, 32):
        part = tokens[start : start + 33]
        log_p = torch.log_softmax(model(part[None, :-1])[0].double(), dim=-1)
        nats -= float(log_p.gather(1, part[1:, None]).sum())
    assert bits_per_byte(model, shards) == pytest.approx(nats / math.log(2) / shards.bytes, rel=1e-5)


def test_models_on_the_way_stay_when_asked_for(tmp_path):
    inputs = write_inputs(tmp_path)
    config = dataclasses.replace(CONFIG, tokens=256 * 8, keep_every=4, document_mask=True, prompts=())
    run(inputs, tmp_path / "out", config)
    last, kept = (
        load_model(folder) for folder in (tmp_path / "out", tmp_path / "out" / "checkpoints" / "step-000008")
    )
    assert all(torch.equal(a, b) for a, b in zip(last.parameters(), kept.parameters(), strict=True))
    assert load_model(tmp_path / "out" / "checkpoints" / "step-000004").shape == last.shape


def test_fewer_tokens_than_one_window_are_refused(tmp_path):
    inputs = write_inputs(tmp_path, ["abc", *TEXTS[:10]])
    with pytest.raises(BadInput, match="fewer than one window of 32"):
        run(inputs, tmp_path / "out")


def test_shards_of_another_vocabulary_and_ids_beyond_it_are_refused(tmp_path):
    inputs = write_inputs(tmp_path)
    path = inputs["tokens"] / "index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps(index | {"vocab_size": 300}))
    with pytest.raises(BadInput, match=r"made with a vocabulary of 300, .* has 264"):
        run(inputs, tmp_path / "out")
    path.write_text(json.dumps(index))
    tokens = np.fromfile(inputs["tokens"] / "train-00000.bin", np.uint16)
    tokens[::7] = 999
    tokens.tofile(inputs["tokens"] / "train-00000.bin")
    with pytest.raises(BadInput, match="hold the id 999, and their vocabulary ends with 263"):
        run(inputs, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv_heads": 3}, "heads = 4 is no multiple of kv_heads = 3"),
        ({"head_dim": 15}, "head_dim = 15 is odd"),
        ({"family": "gpt2", "width": 60}, "gpt2 has heads x head_dim = width"),
        ({"depth": 0}, "every size is at least 1"),
    ],
    ids=["kv_heads", "head_dim", "gpt2", "depth"],
)
def test_a_model_that_does_not_divide_is_refused(change, message):
    model = Model(depth=2, width=64, heads=4, kv_heads=2, head_dim=16, mlp=64)
    with pytest.raises(BadInput, match=f"pretrain.model: {message}"):
        shape_of(dataclasses.replace(model, **change), 264)


@torch.no_grad()
def test_a_text_longer_than_the_context_is_refused():
    model = Transformer(shape_of(CONFIG.model, 264))
    with pytest.raises(BadInput, match="33 tokens are more than the model's context of 32"):
        model(torch.zeros(1, 33, dtype=torch.long))


@pytest.mark.parametrize("family", ["llama", "gpt2", "speedrun"])
def test_every_family_learns(family, tmp_path):
    model = dataclasses.replace(CONFIG.model, family=family)
    config = dataclasses.replace(CONFIG, model=model, prompts=(), eval_every=10**9)
    metrics = run(write_inputs(tmp_path), tmp_path / "out", config)
    assert metrics["loss"] < 3.2  # of 5.6 at first
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == family


@pytest.mark.slow
def test_a_pretraining_killed_again_and_again_ends_with_the_same_bytes(trained, tmp_path):
    inputs, out, _ = trained
    command = [sys.executable, str(SCRIPT), str(inputs["tokens"].parent), str(tmp_path / "out")]
    rng = random.Random(0)
    kills = 0
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as parent:
        for _ in range(4):
            parent.stdin.write("go\n")
            child = int(parent.stdout.readline())
            time.sleep(rng.uniform(0.05, 0.6))
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
                kills += 1
        parent.stdin.close()
    assert kills > 0
    run(inputs, tmp_path / "out")
    assert final_bytes(tmp_path / "out") == final_bytes(out)
