"""The pretraining stage on shards of a few thousand tokens."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.core.errors import BadInput
from crawltalk.core.shards import Index, TokenShards, write_index, write_split
from crawltalk.model.hf import load_model
from crawltalk.model.transformer import Transformer
from crawltalk.pretraining.pretrain import pretrain, shape_of, windows
from crawltalk.recipe import Machine, Model, Optim, Pretrain
from crawltalk.run.stage import Job, Progress
from crawltalk.tokenizer import Tokenizer
from crawltalk.train.validate import bits_per_byte

TEXTS = [
    f"The element number {number} is element {number}, after {number - 1}.\n" for number in range(1, 160)
]
CONFIG = Pretrain(
    model=Model(depth=2, width=32, heads=2, kv_heads=2, head_dim=16, mlp=64, context=32),
    optim=Optim(lr=0.02, adam_lr=0.01),
    tokens=256 * 30,
    batch_tokens=256,
    eval_every=10,
    save_every=5,
    prompts=("The element", "after 7"),
)


def write_inputs(folder: Path, texts: list[str] = TEXTS) -> dict[str, Path]:
    """A tokenizer of bytes and shards of the texts; the last ten are for validation."""
    tokenizer = Tokenizer.trained([])
    tokenizer.save(folder / "tokenizer")
    rows = [
        (str(place), np.array(tokenizer.encode(text)), len(text.encode())) for place, text in enumerate(texts)
    ]
    (folder / "tokens").mkdir(parents=True)
    train = write_split(folder / "tokens", "train", rows[:-10], tokenizer.eot, "uint16")
    val = write_split(folder / "tokens", "val", rows[-10:], tokenizer.eot, "uint16")
    index = Index(dtype="uint16", vocab_size=tokenizer.size, eot=tokenizer.eot, train=train, val=val)
    write_index(folder / "tokens", index)
    return {"tokens": folder / "tokens", "tokenizer": folder / "tokenizer"}


def run(inputs: dict[str, Path], out: Path) -> dict:
    out.mkdir(exist_ok=True)
    machine = Machine(workers=1, device="cpu", dtype="float32")
    return pretrain(Job(config=CONFIG, inputs=inputs, out=out, seed=5, machine=machine, progress=Progress()))


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


@given(
    length=st.integers(40, 400), rows=st.integers(1, 7), context=st.integers(1, 39), seed=st.integers(0, 9)
)
@settings(max_examples=30, deadline=None)
def test_in_each_pass_no_token_is_predicted_twice_and_less_than_a_window_is_left_out(
    tmp_path_factory, length, rows, context, seed
):
    folder = tmp_path_factory.mktemp("shards")
    places = write_split(folder, "train", [("a", np.arange(1, length), 1)], 0, "uint16")
    write_index(folder, Index(dtype="uint16", vocab_size=length, eot=0, train=places, val=places))
    shards = TokenShards(folder, "train")
    batch = windows(shards, rows, context, seed)
    count = length // context
    steps = -(-2 * count // rows)
    tokens, targets = (
        torch.cat(parts) for parts in zip(*(batch(step) for step in range(steps)), strict=True)
    )
    # token i is the number i, so each is followed by the next
    assert torch.equal((tokens + 1) % length, targets)
    for epoch in range(2):
        predicted = targets[epoch * count : (epoch + 1) * count].flatten().tolist()
        assert len(predicted) == len(set(predicted)) > length - context


def test_models_on_the_way_stay_when_asked_for(tmp_path):
    inputs = write_inputs(tmp_path)
    config = dataclasses.replace(CONFIG, tokens=256 * 8, keep_every=4, document_mask=True)
    (tmp_path / "out").mkdir()
    machine = Machine(workers=1, device="cpu", dtype="float32")
    pretrain(
        Job(config=config, inputs=inputs, out=tmp_path / "out", seed=5, machine=machine, progress=Progress())
    )
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
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, family=family))
    inputs = write_inputs(tmp_path)
    (tmp_path / "out").mkdir()
    machine = Machine(workers=1, device="cpu", dtype="float32")
    metrics = pretrain(Job(config, inputs, tmp_path / "out", 5, machine, Progress()))
    assert metrics["loss"] < 3.2  # of 5.6 at first
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == family


@pytest.mark.slow
def test_a_pretraining_killed_again_and_again_ends_with_the_same_bytes(trained, tmp_path):
    inputs, out, _ = trained
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import test_pretrain as t\n"
        "base = Path(sys.argv[2]); print('ready', flush=True)\n"
        "t.run({'tokens': base / 'tokens', 'tokenizer': base / 'tokenizer'}, Path(sys.argv[3]))"
    )
    command = [
        sys.executable,
        "-c",
        program,
        str(Path(__file__).parent),
        str(inputs["tokens"].parent),
        str(tmp_path / "out"),
    ]
    rng = random.Random(0)
    kills = 0
    for _ in range(4):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(rng.uniform(0.05, 0.6))
        child.send_signal(signal.SIGKILL)
        kills += child.wait() == -signal.SIGKILL
        child.stdout.close()
    assert kills > 0
    run(inputs, tmp_path / "out")
    assert final_bytes(tmp_path / "out") == final_bytes(out)
