"""Fine-tuning from a model of one's own: whole or by adapters, on conversations and on preferences."""

import dataclasses
import json

import pytest
import torch

from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import BadInput
from crawltalk.core.jsonl import write_jsonl
from crawltalk.engine import load_engine
from crawltalk.model.adapters import adapted_layers, add_adapters, merge, read_adapter
from crawltalk.model.hf import load_model, save_model
from crawltalk.pipeline import stages
from crawltalk.posttraining import tuning
from crawltalk.posttraining.dpo import dpo
from crawltalk.posttraining.external_inputs import external_inputs
from crawltalk.posttraining.sft import sft
from crawltalk.recipe import Dpo, Lora, Machine, Sft
from crawltalk.recipe.layers import load_recipe
from crawltalk.recipe.sft import SftFile
from crawltalk.run.stage import STATE, Job, Progress
from crawltalk.train.batches import Batch
from support.engines import TOKENIZER
from support.foreign import tokenizer_json, write
from support.models import QWEN, random_model

MACHINE = Machine(workers=1, device="cpu", dtype="float32")
TOKENS = torch.tensor([[5, 9, 70, 2]])


@pytest.fixture
def base(tmp_path):
    """A model that chats, as another run or program might have left it."""
    folder = tmp_path / "base"
    shape = dataclasses.replace(QWEN, vocab_size=TOKENIZER.vocab_size, context=128)
    save_model(random_model(shape), folder, eos=0)
    ChatRenderer(TOKENIZER).save(folder)
    return folder


@pytest.fixture
def conversations(tmp_path):
    path = tmp_path / "mine.jsonl"
    pair = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}]
    write_jsonl(path, [{"messages": pair}] * 60)
    return path


@pytest.fixture
def preferences(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [
        {
            "prompt": [{"role": "user", "content": f"Is it {word}?"}],
            "chosen": [{"role": "assistant", "content": "Yes."}],
            "rejected": [{"role": "assistant", "content": "No, no."}],
        }
        for word in ("late", "early", "cold", "warm", "dark", "far", "near", "old", "new", "here")
    ]
    write_jsonl(path, rows)
    return path


def job(config, out, **settings):
    out.mkdir(exist_ok=True)
    return Job(config=config, inputs={}, out=out, seed=0, machine=MACHINE, progress=Progress(), **settings)


def sft_of(base, conversations, **settings):
    mine = {"mine": SftFile(path=str(conversations))}
    return Sft(base=str(base), data=mine, epochs=4.0, batch_tokens=256, prompts=(), **settings)


@pytest.mark.parametrize("lora", [Lora(), Lora(rank=4, dropout=0.1, lr=0.01)], ids=["whole", "adapters"])
def test_any_model_is_fine_tuned_on_a_file_and_chats_afterwards(lora, base, conversations, tmp_path):
    out = tmp_path / "out"
    metrics = sft(job(sft_of(base, conversations, lora=lora), out))
    losses = [json.loads(line).get("loss") for line in (out / "log.jsonl").read_text().splitlines()]
    assert metrics["loss"] < losses[0]
    assert ChatRenderer.load(out).chats and load_engine(out)
    assert not list(adapted_layers(load_model(out)))
    assert (out / "adapter").exists() == bool(lora.rank)
    if lora.rank:
        adapter, name = read_adapter(out / "adapter")
        again = load_model(name)
        merge(again, adapter, name)
        torch.testing.assert_close(again(TOKENS), load_model(out)(TOKENS))


def test_an_adapter_that_cannot_be_merged_is_refused(base):
    model = load_model(base)
    add_adapters(model, Lora(rank=2), seed=0)
    batch = Batch(TOKENS[:, :-1], TOKENS[:, 1:])
    assert tuning.merge_checked(model, base, batch).shape == model.shape
    with torch.no_grad():
        model.blocks[0].mlp.down.lora_B.fill_(torch.inf)
    with pytest.raises(BadInput, match=r"merging the adapter changes the loss from .* lower rate"):
        tuning.merge_checked(model, base, batch)


def test_preferences_move_the_model_and_what_the_reference_thinks_is_computed_once(
    base, preferences, tmp_path, monkeypatch
):
    config = Dpo(
        base=str(base), data=(str(preferences),), epochs=4.0, batch_pairs=5, lora=Lora(rank=4, lr=0.01)
    )
    out = tmp_path / "out"
    metrics = dpo(job(config, out))
    assert metrics["pairs"] == 10
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert rows[-1]["rewards/accuracies"] == 1.0
    assert rows[-1]["rewards/margins"] > rows[0]["rewards/margins"]

    again = tmp_path / "again"
    (again / STATE).mkdir(parents=True)
    first = (out / STATE / "reference.bin").read_bytes()
    (again / STATE / "reference.bin").write_bytes(first[:-25])  # killed within the last ones
    dpo(job(config, again))
    assert (again / STATE / "reference.bin").read_bytes() == first
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        assert (again / name).read_bytes() == (out / name).read_bytes()


def test_pairs_that_teach_nothing_are_counted_and_none_left_is_an_error(base, tmp_path):
    path = tmp_path / "same.jsonl"
    turn = [{"role": "assistant", "content": "Yes."}]
    question = [{"role": "user", "content": "Is it?"}]
    write_jsonl(path, [{"prompt": question, "chosen": turn, "rejected": turn}])
    with pytest.raises(BadInput, match="none can be learned from"):
        dpo(job(Dpo(base=str(base), data=(str(path),)), tmp_path / "out"))


def test_a_model_without_a_chat_format_is_refused_in_one_line(base, tmp_path):
    plain = tmp_path / "plain"
    save_model(load_model(base), plain, eos=0)
    write(plain, tokenizer=tokenizer_json())
    with pytest.raises(BadInput, match="has no chat format"):
        tuning.starting_model(job(Sft(base=str(plain)), tmp_path / "out"), "base")


def test_a_stage_with_a_base_reads_less_of_the_run_and_its_fingerprint_follows_the_model(base):
    flags = {"sft.base": str(base), "dpo.data": "pairs.jsonl"}
    named = {stage.name: stage for stage in stages(load_recipe("nano", flags=flags))}
    assert named["sft"].inputs == ("factuality", "tokens", "data")
    assert named["dpo"].inputs == ("sft",)
    recipe = load_recipe("nano", flags={**flags, "sft.data.mine.path": "mine.jsonl"})
    assert next(stage for stage in stages(recipe) if stage.name == "sft").inputs == ()
    assert recipe.sft.optim.muon_lr is None, "the rates follow from the width of the base"
    before = external_inputs(recipe.sft)
    (base / "generation_config.json").write_text("{}")
    assert external_inputs(recipe.sft) != before
