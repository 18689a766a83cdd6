"""What a config.json says: each field gives the logits that `transformers` computes from the same folder, or is refused
by its name.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.engine import Engine
from crawltalk.engine.backends.cpu import CpuBackend
from crawltalk.model.config import config_of, shape_of
from crawltalk.model.hf import load_model, save_model
from crawltalk.tokenizer import Tokenizer
from support.foreign import tokenizer_json, write

CLASSES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    "gpt2": (transformers.GPT2Config, transformers.GPT2LMHeadModel),
}
SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "rope_theta": 10_000.0,
    "sliding_window": None,
}
GPT2_SIZES = {"vocab_size": 97, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
TOKENS = torch.randint(0, 97, (2, 60), generator=torch.Generator().manual_seed(0))
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
ABSENT = ...
SAME: list[tuple[str, dict[str, Any]]] = [
    *((family, {}) for family in CLASSES),
    *((family, {"tie_word_embeddings": True}) for family in CLASSES),
    *((family, {"tie_word_embeddings": ABSENT}) for family in ("llama", "mistral", "qwen2", "qwen3")),
    *((family, {"rms_norm_eps": ABSENT, "hidden_act": ABSENT}) for family in ("llama", "qwen3")),
    ("llama", {"num_key_value_heads": ABSENT}),
    ("llama", {"num_key_value_heads": None, "head_dim": None}),
    ("llama", {"head_dim": ABSENT}),
    ("llama", {"head_dim": 32}),
    (
        "mistral",
        {"hidden_size": 128, "head_dim": ABSENT, "num_attention_heads": 8, "num_key_value_heads": ABSENT},
    ),
    ("mistral", {"sliding_window": ABSENT}),
    ("mistral", {"sliding_window": 64}),
    ("qwen2", {"head_dim": ABSENT}),
    ("qwen3", {"head_dim": ABSENT}),
    ("qwen3", {"sliding_window": 4}),
    ("qwen3", {"sliding_window": 4, "use_sliding_window": False, "max_window_layers": 0}),
    ("qwen2", {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 2}),
    ("qwen3", {"layer_types": ["full_attention"] * 2}),
    ("llama", {"hidden_act": "swish"}),
    ("llama", {"attention_dropout": 0.5, "use_cache": False, "pretraining_tp": 2, "initializer_range": 1.0}),
    ("llama", {"torch_dtype": "float16", "bos_token_id": 3, "unknown": 7, "quantization_config": None}),
    ("llama", {"attention_bias": False, "mlp_bias": False}),
    ("llama", {"rope_theta": 500_000.0}),
    ("llama", {"rope_theta": ABSENT}),
    ("llama", {"rope_theta": ABSENT, "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}}),
    ("llama", {"rope_theta": 10.0, "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}}),
    ("llama", {"rope_theta": 500.0, "rope_parameters": {"rope_type": "default"}}),
    ("llama", {"rope_scaling": None}),
    ("llama", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    ("qwen2", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}),
    ("llama", {"rope_scaling": LLAMA3 | {"original_max_position_embeddings": 16}}),
    ("llama", {"rope_parameters": LLAMA3 | {"rope_theta": 500.0, "original_max_position_embeddings": 16}}),
    ("qwen3", {"rope_scaling": YARN}),
    ("qwen2", {"rope_scaling": YARN | {"beta_fast": 16, "beta_slow": 2, "truncate": False}}),
    ("llama", {"rope_scaling": YARN | {"attention_factor": 1.5}}),
    ("llama", {"rope_scaling": YARN | {"mscale": 0.7, "mscale_all_dim": 1.2}}),
    ("gpt2", {"n_inner": 80, "layer_norm_epsilon": 1e-3}),
    ("gpt2", {"activation_function": "gelu_pytorch_tanh"}),
]
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"model_type": "gemma3"}, "gemma3"),
    ("llama", {"model_type": ABSENT}, "None"),
    ("llama", {"model_type": ["llama"]}, "type"),
    ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "architectures"),
    ("llama", {"hidden_act": "gelu"}, "hidden_act"),
    ("llama", {"attention_bias": True}, "attention_bias"),
    ("qwen3", {"attention_bias": True}, "attention_bias"),
    ("llama", {"mlp_bias": True}, "mlp_bias"),
    ("llama", {"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
    ("llama", {"auto_map": {"AutoModelForCausalLM": "x.Y"}}, "auto_map"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ("llama", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "rope_parameters"),
    ("llama", {"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "rope_scaling"),
    ("llama", {"rope_scaling": {"rope_type": "default", "mrope_section": [1]}}, "rope_scaling"),
    ("llama", {"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "rope_parameters"),
    ("llama", {"rope_scaling": "linear"}, "rope_scaling"),
    ("llama", {"rope_scaling": {"rope_type": "linear"}}, "without factor"),
    ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 0}}, "factor"),
    ("llama", {"rope_theta": [1.0]}, "rope_theta"),
    ("qwen3", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}, "sliding_window"),
    ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
    ("mistral", {"sliding_window": 4}, "sliding_window"),
    ("mistral", {"sliding_window": ABSENT, "max_position_embeddings": ABSENT}, "sliding_window"),
    ("llama", {"attn_logit_softcapping": 30.0}, "attn_logit_softcapping"),
    ("llama", {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    ("llama", {"residual_multiplier": 0.2}, "residual_multiplier"),
    ("llama", {"embedding_multiplier": 12}, "embedding_multiplier"),
    ("llama", {"logits_scaling": 8}, "logits_scaling"),
    ("llama", {"num_local_experts": 8}, "num_local_experts"),
    ("llama", {"use_qk_norm": True}, "use_qk_norm"),
    ("llama", {"num_key_value_heads": 3}, "num_key_value_heads"),
    ("llama", {"head_dim": 15}, "head_dim"),
    ("llama", {"hidden_size": "64"}, "hidden_size"),
    ("llama", {"vocab_size": 0}, "vocab_size"),
    ("llama", {"num_hidden_layers": True}, "num_hidden_layers"),
    ("llama", {"rms_norm_eps": -1}, "rms_norm_eps"),
    ("llama", {"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
    *(("llama", {name: ABSENT}, name) for name in ("vocab_size", "hidden_size", "intermediate_size")),
    ("gpt2", {"activation_function": "relu"}, "activation_function"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    ("gpt2", {"n_embd": ABSENT}, "n_embd"),
]


def make(folder: Path, family: str, changes: dict[str, Any]) -> Path:
    """A random model whose config.json has these fields and no others of their kind."""
    fields = (GPT2_SIZES if family == "gpt2" else SIZES) | changes
    fields = {name: value for name, value in fields.items() if value is not ABSENT}
    config_class, model_class = CLASSES[family]
    torch.manual_seed(0)
    model = model_class(config_class(**json.loads(json.dumps(fields)))).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(torch.randn_like(weight) * 0.2 + (weight.ndim == 1 and "bias" not in name))
    model.save_pretrained(folder)
    config = {"architectures": [model_class.__name__], "model_type": family} | fields
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(("family", "changes"), SAME, ids=str)
@torch.no_grad()
def test_a_folder_has_the_logits_of_transformers(family, changes, tmp_path):
    folder = make(tmp_path, family, changes)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    expected = theirs.eval()(TOKENS).logits
    ours = load_model(folder)
    torch.testing.assert_close(ours(TOKENS), expected, atol=2e-4, rtol=1e-4)
    tokenizer = Tokenizer.load(write(tmp_path / "tokens", tokenizer=tokenizer_json()))
    engine = Engine(ours, tokenizer, CpuBackend(ours, "float32"))
    torch.testing.assert_close(engine.logits(TOKENS[0].tolist()), expected[0], atol=2e-4, rtol=1e-4)
    assert shape_of(config_of(ours.shape), folder) == ours.shape


@pytest.mark.parametrize(("family", "changes", "name"), REFUSED, ids=str)
def test_what_is_not_computed_is_refused_by_its_name(family, changes, name):
    fields = {"model_type": family} | (GPT2_SIZES if family == "gpt2" else SIZES) | changes
    with pytest.raises(BadInput, match=name) as refused:
        shape_of({name: value for name, value in fields.items() if value is not ABSENT}, "folder")
    assert "\n" not in str(refused.value)


@torch.no_grad()
def test_weights_may_come_with_buffers_without_a_head_or_with_another_one(tmp_path):
    folder = make(tmp_path, "llama", {"tie_word_embeddings": True})
    expected = load_model(folder)(TOKENS)
    weights = load_file(folder / "model.safetensors")
    inverse = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    bare = {name.removeprefix("model."): weight for name, weight in weights.items()}
    for variant in (weights | inverse, bare, bare | {"rotary_emb.inv_freq": torch.ones(8)}):
        save_file({name: weight.clone() for name, weight in variant.items()}, folder / "model.safetensors")
        assert torch.equal(load_model(folder)(TOKENS), expected)
    save_file(
        weights | {"lm_head.weight": torch.randn(97, 64)}, folder / "model.safetensors", {"format": "pt"}
    )
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.testing.assert_close(load_model(folder)(TOKENS), theirs(TOKENS).logits, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path, file: file.unlink(), "does not exist"),
        (lambda path, file: file.write_bytes(b""), "damaged"),
        (lambda path, file: file.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
        (lambda path, file: file.rename(path / "pytorch_model.bin"), "safetensors"),
        (lambda path, file: (path / "config.json").write_text('{"model_type": "ll'), "damaged"),
        (lambda path, file: (path / "config.json").write_text("[1]"), "no JSON object"),
        (lambda path, file: with_index(path, file, {}), "no weight_map"),
        (lambda path, file: with_index(path, file, {"weight_map": {"a": "../b"}}), "outside"),
        (lambda path, file: with_index(path, file, {"weight_map": {"a": "b"}}), "does not exist"),
        (lambda path, file: with_weight(file, "model.norm.weight", None), r"missing \['model.norm.weight'"),
        (lambda path, file: with_weight(file, "score.weight", torch.ones(2)), r"unknown \['score.weight'"),
        (lambda path, file: with_weight(file, "model.norm.weight", torch.ones(3)), r"is \[3\]"),
        (
            lambda path, file: with_weight(file, "model.norm.weight", torch.ones(64, dtype=torch.int8)),
            "stored as int8",
        ),
    ],
    ids=[
        "gone",
        "empty",
        "pointer",
        "pickle",
        "cut",
        "list",
        "map",
        "outside",
        "part",
        "less",
        "more",
        "shape",
        "int8",
    ],
)
def test_a_damaged_folder_is_said_in_one_line(change, message, tmp_path):
    folder = make(tmp_path, "llama", {})
    change(folder, folder / "model.safetensors")
    with pytest.raises((BadInput, MissingInput), match=message) as refused:
        load_model(folder)
    assert "\n" not in str(refused.value)


def with_index(folder: Path, file: Path, index: dict[str, Any]) -> None:
    file.unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def with_weight(file: Path, name: str, weight: torch.Tensor | None) -> None:
    weights = {key: value.clone() for key, value in load_file(file).items() if key != name}
    save_file(weights if weight is None else weights | {name: weight}, file)


@torch.no_grad()
def test_a_model_of_qwen2_is_written_and_read_again(tmp_path):
    model = load_model(make(tmp_path / "given", "qwen2", {}))
    save_model(model, tmp_path / "again", eos=[1, 2])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again", dtype=torch.float32)
    torch.testing.assert_close(model(TOKENS), theirs(TOKENS).logits, atol=2e-4, rtol=1e-4)
    assert theirs.generation_config.eos_token_id == [1, 2]
