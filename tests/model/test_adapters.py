"""Low-rank adapters: against PEFT, merged, and as people save them."""

import dataclasses
import json
import warnings

import pytest
import torch
from torch.nn import functional as F

from crawltalk.cli import main
from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.model.adapters import (
    Adapter,
    adapted_layers,
    adapter_of,
    add_adapters,
    merge,
    merged,
    read_adapter,
    save_adapter,
)
from crawltalk.model.hf import load_model, save_model
from crawltalk.model.lora import GATED, LoraLinear, dropout_seed
from crawltalk.recipe import Lora
from crawltalk.train.batches import Batch
from crawltalk.train.objectives.cross_entropy import cross_entropy
from support.foreign import tokenizer_json, write
from support.models import GPT2, LLAMA, QWEN, SPEEDRUN, random_model

FAMILIES = {"qwen3": QWEN, "llama": LLAMA, "gpt2": GPT2, "speedrun": SPEEDRUN}
TOKENS = torch.randint(0, 97, (2, 24), generator=torch.Generator().manual_seed(1))


def adapted(family: str, lora: Lora, *, trained: bool = True):
    """A model with adapters that change something."""
    model = random_model(FAMILIES[family])
    add_adapters(model, lora, seed=3)
    if trained:
        with torch.no_grad():
            for _, layer in adapted_layers(model):
                layer.lora_B.normal_(0, 0.05)
    return model


def plain_adapter(layer, x, before):
    """The same as `LoraLinear`, by operations that autograd knows."""
    if isinstance(before, torch.Tensor):
        x = x * before
    elif before == GATED:
        gate, up = x.chunk(2, dim=-1)
        x = F.silu(gate) * up
    added = [F.linear(F.linear(x, down), up) for down, up in layer.factors()]
    return F.linear(x, layer.weight, layer.bias) + layer.scale * torch.cat(added, dim=-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_adapter_changes_nothing_and_covers_all_linear_layers_but_the_head(family):
    model = adapted(family, Lora(rank=2), trained=False)
    torch.testing.assert_close(model(TOKENS), random_model(FAMILIES[family])(TOKENS))
    assert len(list(adapted_layers(model))) == 4 * model.shape.layers
    trained = {name.rpartition(".")[2] for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == {"lora_A", "lora_B"}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradients_of_adapters_are_those_of_autograd(family, monkeypatch):
    model = adapted(family, Lora(rank=3, alpha=5))
    batch = Batch(TOKENS[:, :-1], TOKENS[:, 1:])
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    ours = torch.autograd.grad(cross_entropy(model, batch)[0], weights)
    monkeypatch.setattr(LoraLinear, "_adapted", plain_adapter)
    theirs = torch.autograd.grad(cross_entropy(model, batch)[0], weights)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_dropout_follows_the_seed_and_its_gradient_is_that_of_what_was_computed():
    model = adapted("qwen3", Lora(rank=2, dropout=0.5))
    layer = model.blocks[0].mlp.down.double()
    x = torch.randn(5, 48, dtype=torch.float64, requires_grad=True)
    with dropout_seed(1):
        once, again = layer(x), layer(x)
        assert torch.autograd.gradcheck(layer, (x,))
    with dropout_seed(2):
        other = layer(x)
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert not torch.equal(once, layer(x)), "without a seed nothing is dropped"


def test_dropout_is_the_same_when_activations_are_computed_again():
    model = adapted("llama", Lora(rank=2, dropout=0.3))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    batch, grads = Batch(TOKENS[:, :-1], TOKENS[:, 1:]), []
    for model.activation_checkpointing in (False, True):
        with dropout_seed(5):
            loss = cross_entropy(model, batch)[0]
        grads.append(torch.autograd.grad(loss, weights))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_model_computes_the_same(family):
    model = adapted(family, Lora(rank=2, rslora=True))
    together = merged(model)
    torch.testing.assert_close(together(TOKENS), model(TOKENS), rtol=1e-4, atol=1e-4)
    assert not list(adapted_layers(together))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_peft_loads_our_adapter_with_equal_logits_and_we_load_what_it_saves(family, tmp_path):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    lora = Lora(rank=4, alpha=6, rslora=family == "llama")
    save_model(random_model(FAMILIES[family]), tmp_path / "base", eos=0)
    ours = adapted(family, lora)
    save_adapter(ours, tmp_path / "ours", lora, str(tmp_path / "base"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        theirs = peft.PeftModel.from_pretrained(base, tmp_path / "ours").eval()
        with torch.no_grad():
            torch.testing.assert_close(theirs(TOKENS).logits, ours(TOKENS), rtol=1e-4, atol=1e-4)
        assert not [name for name, _ in theirs.named_parameters() if "lora" in name and "head" in name]
        theirs.save_pretrained(tmp_path / "theirs")
    adapter, name = read_adapter(tmp_path / "theirs")
    assert name == str(tmp_path / "base")
    model = load_model(tmp_path / "base")
    merge(model, adapter, "theirs")
    torch.testing.assert_close(model(TOKENS), ours(TOKENS), rtol=1e-4, atol=1e-4)


def test_an_adapter_s_folder_is_imported_merged_into_its_base(tmp_path, capsys):
    base = tmp_path / "base"
    save_model(random_model(QWEN), base, eos=7)
    write(base, tokenizer=tokenizer_json())
    ours, lora = adapted("qwen3", Lora(rank=2)), Lora(rank=2)
    save_adapter(ours, tmp_path / "mine", lora, "someone/elsewhere")
    words = ["import", str(tmp_path / "mine"), "--out", str(tmp_path / "models")]
    assert main(words) == 2
    assert "say where: --base MODEL" in capsys.readouterr().err
    assert main([*words, "--base", str(base)]) == 0
    imported = tmp_path / "models" / "mine"
    torch.testing.assert_close(load_model(imported)(TOKENS), ours(TOKENS), rtol=1e-4, atol=1e-4)
    assert json.loads((imported / "generation_config.json").read_text())["eos_token_id"] == 7


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peft_type", "IA3"),
        ("use_dora", True),
        ("bias", "all"),
        ("modules_to_save", ["lm_head"]),
        ("rank_pattern", {"q_proj": 8}),
    ],
)
def test_an_adapter_that_is_more_than_lora_is_refused_by_the_name_of_the_field(field, value, tmp_path):
    save_adapter(adapted("llama", Lora(rank=2)), tmp_path, Lora(rank=2), "base")
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(BadInput, match=f"says {field} = .*does not compute that"):
        read_adapter(tmp_path)


def test_an_adapter_of_another_model_or_of_its_head_is_refused():
    wide = random_model(dataclasses.replace(LLAMA, width=40))
    adapter = adapter_of(adapted("llama", Lora(rank=2)))
    with pytest.raises(BadInput, match=r"q_proj is \[32, 2\] x \[2, 32\], and the model's matrix \[32, 40\]"):
        merge(wide, adapter, "x")
    with pytest.raises(BadInput, match="the model has no such layer"):
        merge(random_model(GPT2), adapter, "x")
    head = Adapter({"lm_head": (torch.zeros(2, 32), torch.zeros(97, 2))}, 1.0)
    with pytest.raises(BadInput, match="attention and MLP alone"):
        merge(random_model(QWEN), head, "x")


def test_a_folder_that_is_no_adapter_is_refused(tmp_path):
    with pytest.raises(MissingInput, match=r"no adapter_config\.json"):
        read_adapter(tmp_path)
    save_adapter(adapted("llama", Lora(rank=2)), tmp_path, Lora(rank=2), "base")
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(MissingInput, match="as safetensors"):
        read_adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(BadInput, match="damaged"):
        read_adapter(tmp_path)


@pytest.mark.parametrize("lora", [Lora(), Lora(rank=2, dropout=1.0), Lora(rank=2, alpha=0.0)])
def test_settings_that_make_no_adapter_are_refused(lora):
    with pytest.raises(BadInput, match=r"lora\."):
        add_adapters(random_model(QWEN), lora, seed=0)
