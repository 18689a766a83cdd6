"""The Transformer, its cache, and the formats of its weights."""

import dataclasses
import json

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from crawltalk.core.errors import BadInput, MissingInput, TooBig
from crawltalk.model import functions
from crawltalk.model.cache import KVCache, blocks_for
from crawltalk.model.functions import Gated, causal_attention, normalize
from crawltalk.model.hf import load_model, save_model, to_hf
from crawltalk.model.shape import RopeScaling, Shape
from crawltalk.model.transformer import RMSNorm, Transformer, linear_of_norm, rope_tables
from crawltalk.recipe import Model, cost
from support.models import GPT2, LLAMA, QWEN, SPEEDRUN, random_model

SCALED = dataclasses.replace(
    LLAMA,
    rope_scaling=RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=16),
)

FAMILIES = {"qwen3": QWEN, "llama": LLAMA, "llama3.1": SCALED, "gpt2": GPT2}


def peer_config(shape: Shape) -> transformers.PretrainedConfig:
    """The shape as transformers describes it."""
    if shape.family == "gpt2":
        return transformers.GPT2Config(
            vocab_size=shape.vocab_size,
            n_embd=shape.width,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_inner=shape.mlp,
            n_positions=shape.context,
            layer_norm_epsilon=shape.norm_eps,
        )
    scaling = shape.rope_scaling
    rope = {"rope_type": "default", "rope_theta": shape.rope_theta}
    if scaling is not None:
        rope |= {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_context,
        }
    kind = transformers.Qwen3Config if shape.qk_norm else transformers.LlamaConfig
    return kind(
        vocab_size=shape.vocab_size,
        hidden_size=shape.width,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.context,
        rms_norm_eps=shape.norm_eps,
        rope_parameters=rope,
        tie_word_embeddings=shape.tie_embeddings,
        attention_bias=False,
    )


@pytest.mark.parametrize("shape", FAMILIES.values(), ids=FAMILIES)
@torch.no_grad()
def test_transformers_loads_our_folder_with_the_same_logits(shape, tmp_path):
    model = random_model(shape)
    save_model(model, tmp_path, eos=1)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokens = torch.randint(0, shape.vocab_size, (2, 40))
    torch.testing.assert_close(model(tokens), theirs(tokens).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", FAMILIES.values(), ids=FAMILIES)
@torch.no_grad()
def test_we_load_a_folder_of_transformers_with_the_same_logits(shape, tmp_path):
    config = peer_config(shape)
    torch.manual_seed(1)
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    assert ours.shape == shape
    tokens = torch.randint(0, shape.vocab_size, (2, 40))
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits, atol=1e-4, rtol=1e-4)


def cache_of(shape, rows, capacity):
    """An empty cache whose rows' blocks lie in disorder."""
    each = blocks_for(capacity)
    cache = KVCache(shape, rows * each + 1)
    cache.select(
        torch.randperm(rows * each + 1)[: rows * each].view(rows, each), torch.zeros(rows, dtype=torch.int64)
    )
    return cache


@pytest.mark.parametrize("shape", [QWEN, LLAMA, GPT2, SPEEDRUN], ids=["qwen3", "llama", "gpt2", "speedrun"])
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4), more=st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_cached_decoding_of_a_ragged_batch_equals_the_full_forward(shape, lengths, more):
    model = random_model(shape)
    tokens = torch.randint(0, shape.vocab_size, (len(lengths), max(lengths) + more))
    with torch.no_grad():
        cache = cache_of(shape, len(lengths), tokens.shape[1])
        prefill = model(tokens[:, : max(lengths)], cache)
        cache.advance(torch.tensor(lengths))
        for row, length in enumerate(lengths):
            torch.testing.assert_close(
                prefill[row, :length], model(tokens[row : row + 1, :length])[0], atol=1e-4, rtol=1e-4
            )
        for step in range(more):
            column = torch.stack([tokens[row, length + step] for row, length in enumerate(lengths)])[:, None]
            logits = model(column, cache)
            cache.advance(1)
            for row, length in enumerate(lengths):
                whole = model(tokens[row : row + 1, : length + step + 1])[0, -1]
                torch.testing.assert_close(logits[row, 0], whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", FAMILIES.values(), ids=FAMILIES)
@torch.no_grad()
def test_large_models_are_saved_in_several_files(shape, tmp_path):
    model = random_model(shape)
    save_model(model, tmp_path, eos=1, shard_bytes=20_000)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    assert not (tmp_path / "model.safetensors").exists()
    tokens = torch.randint(0, shape.vocab_size, (2, 20))
    assert torch.equal(load_model(tmp_path)(tokens), model(tokens))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    torch.testing.assert_close(model(tokens), theirs(tokens).logits, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_gpt2_is_read_under_openais_own_names(tmp_path):
    model = random_model(GPT2)
    save_model(model, tmp_path, eos=1)
    tensors = {
        name.removeprefix("transformer."): tensor.contiguous() for name, tensor in to_hf(model).items()
    }
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 64, 64).tril()
    save_file(tensors, tmp_path / "model.safetensors")
    tokens = torch.randint(0, GPT2.vocab_size, (1, 20))
    assert torch.equal(load_model(tmp_path)(tokens), model(tokens))


def test_a_model_larger_than_the_memory_is_refused_with_the_sum_before_it_is_read(tmp_path):
    config = peer_config(LLAMA).to_dict() | {
        "hidden_size": 16_384,
        "intermediate_size": 53_248,
        "num_hidden_layers": 126,
    }
    config |= {"num_attention_heads": 128, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128_256}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        TooBig, match=r"405,853,388,800 parameters of 4 bytes = 1,623.4 GB, and the memory has"
    ):
        load_model(tmp_path)


def test_the_norm_and_its_gradient_are_those_of_rms_norm():
    x = torch.randn(3, 5, 16, requires_grad=True)
    torch.testing.assert_close(
        normalize(x, 1e-6), torch.nn.functional.rms_norm(x, (16,), eps=1e-6), atol=1e-6, rtol=1e-6
    )
    (ours,) = torch.autograd.grad(normalize(x, 1e-6).pow(3).sum(), x)
    (theirs,) = torch.autograd.grad(torch.nn.functional.rms_norm(x, (16,), eps=1e-6).pow(3).sum(), x)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 100, 128, 300])
def test_attention_in_blocks_and_its_gradients_equal_the_fused_kernel(steps):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, heads, steps, 16, requires_grad=True) for heads in (4, 2, 2))
    d_y = torch.randn(2, 4, steps, 16)
    whole = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    ours = causal_attention(q, k, v)
    torch.testing.assert_close(ours, whole, atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (q, k, v), d_y), torch.autograd.grad(whole, (q, k, v), d_y), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rows", [2, 200])
def test_a_norms_weight_in_the_matrix_gives_the_same_product_and_gradients(rows):
    torch.manual_seed(0)
    norm, linear, x = (
        RMSNorm(16, 1e-6),
        torch.nn.Linear(16, 24, bias=False),
        torch.randn(rows, 16, requires_grad=True),
    )
    norm.weight.data.uniform_(0.5, 2.0)
    inputs, d_y = (x, norm.weight, linear.weight), torch.randn(rows, 24)
    folded, plain = linear_of_norm(linear, norm, x), linear(norm(x))
    torch.testing.assert_close(folded, plain)
    for mine, theirs in zip(
        torch.autograd.grad(folded, inputs, d_y), torch.autograd.grad(plain, inputs, d_y), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_the_gate_and_its_gradient_are_those_of_swiglu():
    torch.manual_seed(0)
    gate_up = torch.randn(3, 5, 16, requires_grad=True)
    gate, up = gate_up.chunk(2, dim=-1)
    plain, ours = torch.nn.functional.silu(gate) * up, Gated.apply(gate_up)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(*(torch.autograd.grad(y.square().sum(), gate_up)[0] for y in (ours, plain)))


@given(
    family=st.sampled_from(["qwen3", "llama", "gpt2", "speedrun"]),
    depth=st.integers(1, 4),
    vocab=st.integers(16, 300),
    tied=st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_the_budget_counts_the_parameters_that_exist(family, depth, vocab, tied):
    from crawltalk.pretraining.pretrain import shape_of

    model = Model(
        family=family,
        depth=depth,
        width=64 * depth,
        heads=depth,
        kv_heads=depth,
        mlp=192 * depth,
        tie_embeddings=tied,
    )
    built = Transformer(shape_of(model, vocab))
    assert cost.parameters(model, vocab) == sum(weight.numel() for weight in built.parameters())


@torch.no_grad()
def test_a_speedrun_model_is_saved_and_loaded_and_its_logits_are_capped(tmp_path):
    model = random_model(SPEEDRUN)
    model.head.weight.mul_(100)
    save_model(model, tmp_path, eos=1)
    again, tokens = load_model(tmp_path), torch.randint(0, 97, (2, 20))
    assert again.shape == SPEEDRUN
    torch.testing.assert_close(again(tokens), model(tokens))
    assert 14 < float(again(tokens).abs().max()) <= 15


@pytest.mark.parametrize("long", [0, 2048], ids=["fused kernel", "blocks"])
@pytest.mark.parametrize("shape", [QWEN, GPT2], ids=["rotary positions", "learned positions"])
@torch.no_grad()
def test_with_a_document_mask_a_document_is_read_as_if_it_stood_alone(shape, long, monkeypatch):
    monkeypatch.setattr(functions, "LONG", long)
    model, tokens = random_model(shape), torch.randint(1, 97, (2, 40))
    tokens[0, 13] = tokens[0, 30] = tokens[1, 7] = 0
    packed = model.states(tokens, documents_BT=(tokens == 0).cumsum(1))
    alone = model.states(tokens[:1, 13:30])
    torch.testing.assert_close(packed[0, 13:30], alone[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(model.states(tokens)[0, 13:30], alone[0], atol=1e-2)


def test_activation_checkpointing_gives_the_same_gradients():
    model, tokens = random_model(SPEEDRUN), torch.randint(0, 97, (2, 21))
    gradients = []
    for model.activation_checkpointing in (False, True):
        gradients.append(torch.autograd.grad(model(tokens).square().sum(), list(model.parameters())))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_rotary_tables_start_at_angle_zero():
    cos, sin = rope_tables(QWEN)
    assert cos.shape == sin.shape == (64, 16)
    assert bool((cos[0] == 1).all())
    assert bool((sin[0] == 0).all())


def test_foreign_and_damaged_folders_are_refused_in_one_line(tmp_path):
    with pytest.raises(MissingInput, match=r"no config\.json"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(BadInput, match="type 'mamba'"):
        load_model(tmp_path)
    save_model(random_model(QWEN), tmp_path, eos=1)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"hidden_size": 32', '"hidden_size": 64'))
    with pytest.raises(BadInput, match=r"config\.json says"):
        load_model(tmp_path)
