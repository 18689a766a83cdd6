"""Weights in Hugging Face's folder layout (config.json, model.safetensors), for Qwen3's and Llama's shapes."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.stage import write_atomically
from crawltalk.model.shape import RopeScaling, Shape
from crawltalk.model.transformer import Transformer


def save_model(model: Transformer, folder: Path, *, eos: int, bos: int | None = None) -> None:
    """Write the model in fp32, as Qwen3 if it normalises queries and keys, else as Llama. `eos` ends a document or reply."""
    shape = model.shape
    config = {
        "architectures": ["Qwen3ForCausalLM" if shape.qk_norm else "LlamaForCausalLM"],
        "model_type": "qwen3" if shape.qk_norm else "llama",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.width,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "rope_scaling": _scaling_config(shape.rope_scaling),
        "tie_word_embeddings": shape.tie_embeddings,
        "attention_bias": False,
        "dtype": "float32",
        "eos_token_id": eos,
        "bos_token_id": bos,
    }
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: weight.float().contiguous() for name, weight in to_hf(model).items()}
    write_atomically(folder / "model.safetensors", save(tensors, metadata={"format": "pt"}))
    generation = {"eos_token_id": eos, "bos_token_id": bos, "do_sample": True}
    write_atomically(folder / "generation_config.json", json.dumps(generation, indent=2).encode())
    write_atomically(folder / "config.json", json.dumps(config, indent=2).encode())


def load_model(folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Transformer:
    """Read a model of Qwen3's or Llama's shape. Raises MissingInput or BadInput, with the reason, for anything else."""
    path = folder / "config.json"
    if not path.exists():
        raise MissingInput(f"{folder} holds no model (no config.json); make one with: crawltalk run small")
    config = json.loads(path.read_text(encoding="utf-8"))
    model = Transformer(shape_of(config, folder))
    load_hf(model, read_tensors(folder), folder)
    return model.to(device=device, dtype=dtype).eval()


def shape_of(config: dict[str, Any], folder: Path) -> Shape:
    """The shape that a config.json describes."""
    kind = config.get("model_type")
    if kind not in ("qwen3", "llama"):
        raise BadInput(f"{folder} is a model of type {kind!r}; crawltalk runs qwen3 and llama")
    if config.get("attention_bias") or config.get("mlp_bias"):
        raise BadInput(f"{folder} has biases in its linear layers; crawltalk runs the shapes without")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}  # transformers 5 calls it the former
    scaled = rope.get("rope_type", rope.get("type", "default"))
    if scaled not in ("default", "llama3"):
        raise BadInput(f"{folder} scales its rotary embedding in a way that crawltalk does not know: {rope}")
    heads = config["num_attention_heads"]
    return Shape(
        vocab_size=config["vocab_size"],
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        mlp=config["intermediate_size"],
        context=config["max_position_embeddings"],
        rope_theta=config.get("rope_theta") or rope.get("rope_theta", 10_000.0),
        rope_scaling=_read_scaling(rope) if scaled == "llama3" else None,
        norm_eps=config["rms_norm_eps"],
        qk_norm=kind == "qwen3",
        tie_embeddings=config.get("tie_word_embeddings", False),
    )


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder: model.safetensors, or the files that its index lists."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        names = ["model.safetensors"]
    tensors: dict[str, Tensor] = {}
    for name in names:
        if not (folder / name).exists():
            raise MissingInput(f"{folder / name} is not there; copy the whole folder of the model")
        with safe_open(folder / name, "pt") as file:
            tensors |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    return tensors


def to_hf(model: Transformer) -> dict[str, Tensor]:
    """Weights under Hugging Face's names; the fused matrices in their parts."""
    shape = model.shape
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    tensors = {"model.embed_tokens.weight": model.embedding.weight, "model.norm.weight": model.norm.weight}
    if model.head is not None:
        tensors["lm_head.weight"] = model.head.weight
    weights = dict(model.named_parameters())
    for layer in range(shape.layers):
        ours, theirs = f"blocks.{layer}.", f"model.layers.{layer}."
        q, k, v = weights[ours + "attention.qkv.weight"].split((queries, keys, keys))
        gate, up = weights[ours + "mlp.gate_up.weight"].chunk(2)
        tensors |= {
            theirs + "input_layernorm.weight": weights[ours + "attention_norm.weight"],
            theirs + "self_attn.q_proj.weight": q,
            theirs + "self_attn.k_proj.weight": k,
            theirs + "self_attn.v_proj.weight": v,
            theirs + "self_attn.o_proj.weight": weights[ours + "attention.out.weight"],
            theirs + "post_attention_layernorm.weight": weights[ours + "mlp_norm.weight"],
            theirs + "mlp.gate_proj.weight": gate,
            theirs + "mlp.up_proj.weight": up,
            theirs + "mlp.down_proj.weight": weights[ours + "mlp.down.weight"],
        }
        if shape.qk_norm:
            tensors[theirs + "self_attn.q_norm.weight"] = weights[ours + "attention.q_norm"]
            tensors[theirs + "self_attn.k_norm.weight"] = weights[ours + "attention.k_norm"]
    return {name: tensor.detach() for name, tensor in tensors.items()}


def load_hf(model: Transformer, tensors: dict[str, Tensor], source: Path) -> None:
    """Copy tensors with Hugging Face's names into the model; BadInput if one is missing, too many, or of another size."""
    views = to_hf(model)  # views of the model's own storage: copying into them fills the fused matrices
    extra = set(tensors) - set(views) - ({"lm_head.weight"} if model.head is None else set())
    missing = set(views) - set(tensors)
    if extra or missing:
        raise BadInput(
            f"{source}: weights do not fit config.json (missing {sorted(missing)[:2]}, unknown {sorted(extra)[:2]})"
        )
    for name, view in views.items():
        if view.shape != tensors[name].shape:
            raise BadInput(f"{source}: {name} is {list(tensors[name].shape)}, config.json says {list(view.shape)}")
        view.copy_(tensors[name])


def _read_scaling(scaling: dict[str, Any]) -> RopeScaling:
    return RopeScaling(
        factor=scaling["factor"],
        low_freq_factor=scaling["low_freq_factor"],
        high_freq_factor=scaling["high_freq_factor"],
        original_context=scaling["original_max_position_embeddings"],
    )


def _scaling_config(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_context,
    }
