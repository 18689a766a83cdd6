"""Weights in Hugging Face's folder layout (config.json, model.safetensors), for the families of Qwen3, Llama
and GPT-2.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from crawltalk.core.errors import BadInput, MissingInput, TooBig
from crawltalk.core.files import write_atomically
from crawltalk.model.shape import RopeScaling, Shape
from crawltalk.model.transformer import Transformer, rope_tables
from crawltalk.run.machine import memory_bytes

SHARD_BYTES = 5_000_000_000
"""Most bytes of one file of weights, unless a single tensor is larger."""
_GPT2_BUFFERS = (".attn.bias", ".attn.masked_bias")
"""Causal masks that OpenAI's files hold beside the weights."""


def save_model(
    model: Transformer,
    folder: str | Path,
    *,
    eos: int,
    bos: int | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the model in fp32, in several files if it is large. `eos` ends a document or reply."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = to_hf(model)
    shards: list[list[str]] = [[]]
    held = 0
    for name, tensor in tensors.items():
        if shards[-1] and held + 4 * tensor.numel() > shard_bytes:
            shards.append([])
            held = 0
        shards[-1].append(name)
        held += 4 * tensor.numel()
    files = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    files = files if len(files) > 1 else ["model.safetensors"]
    for file, names in zip(files, shards, strict=True):
        part = {name: tensors[name].float().contiguous() for name in names}
        write_atomically(folder / file, save(part, metadata={"format": "pt"}))
    if len(files) > 1:
        total = 4 * sum(map(torch.numel, tensors.values()))
        weight_map = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_atomically(folder / "model.safetensors.index.json", json.dumps(index, indent=2).encode())
    generation = {"eos_token_id": eos, "bos_token_id": bos, "do_sample": True}
    write_atomically(folder / "generation_config.json", json.dumps(generation, indent=2).encode())
    config = config_of(model.shape) | {"dtype": "float32", "eos_token_id": eos, "bos_token_id": bos}
    write_atomically(folder / "config.json", json.dumps(config, indent=2).encode())


def load_model(folder: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Transformer:
    """Read a model, tensor by tensor from memory-mapped files.

    Raises MissingInput; BadInput with the reason for another kind of model, or damaged files; TooBig before
    anything is read.
    """
    folder = Path(folder)
    path = folder / "config.json"
    if not path.exists():
        raise MissingInput(f"{folder} has no model (no config.json); make one with: crawltalk run small")
    shape = shape_of(json.loads(path.read_text(encoding="utf-8")), folder)
    with torch.device("meta"):
        model = Transformer(shape).to(dtype)
    _check_memory(model, folder, device)
    model.to_empty(device=device)
    model.rope_cos, model.rope_sin = (table.to(device, dtype) for table in rope_tables(shape))
    load_hf(model, _Tensors(folder), folder)
    return model.eval()


def _check_memory(model: Transformer, folder: Path, device: str) -> None:
    count = sum(weight.numel() for weight in model.parameters())
    width = next(model.parameters()).element_size()
    have = memory_bytes() if device == "cpu" else torch.cuda.mem_get_info(device)[0]
    if count * width > have:
        raise TooBig(
            f"{folder} has {count:,} parameters of {width} bytes = {count * width / 1e9:,.1f} GB, and the memory has "
            f"{have / 1e9:,.1f} GB; take a smaller model or a larger machine"
        )


def config_of(shape: Shape) -> dict[str, Any]:
    """A shape as Hugging Face's config.json."""
    if shape.family == "gpt2":
        return {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "vocab_size": shape.vocab_size,
            "n_layer": shape.layers,
            "n_embd": shape.width,
            "n_head": shape.heads,
            "n_inner": shape.mlp,
            "n_positions": shape.context,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": shape.norm_eps,
            "tie_word_embeddings": shape.tie_embeddings,
        }
    architecture = {
        "qwen3": "Qwen3ForCausalLM",
        "llama": "LlamaForCausalLM",
        "speedrun": "CrawltalkSpeedrun",
    }[shape.family]
    return {
        "architectures": [architecture],
        "model_type": shape.family,
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
    }


def shape_of(config: dict[str, Any], folder: str | Path) -> Shape:
    """The shape that a config.json describes. Raises BadInput for what crawltalk does not compute."""
    kind = config.get("model_type")
    if kind == "gpt2":
        return _gpt2_shape(config, folder)
    if kind not in ("qwen3", "llama", "speedrun"):
        raise BadInput(
            f"{folder} is a model of type {kind!r}; crawltalk runs qwen3, llama, gpt2 and its own speedrun"
        )
    if config.get("attention_bias") or config.get("mlp_bias"):
        raise BadInput(f"{folder} has biases in its linear layers; crawltalk runs qwen3 and llama without")
    # transformers 5 calls it the former
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type not in ("default", "llama3"):
        raise BadInput(
            f"{folder} scales its rotary embedding in a way that crawltalk does not support: {rope}"
        )
    heads = config["num_attention_heads"]
    return Shape(
        family=kind,
        vocab_size=config["vocab_size"],
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        mlp=config["intermediate_size"],
        context=config["max_position_embeddings"],
        rope_theta=config.get("rope_theta") or rope.get("rope_theta", 10_000.0),
        rope_scaling=_read_scaling(rope) if rope_type == "llama3" else None,
        norm_eps=config["rms_norm_eps"],
        tie_embeddings=config.get("tie_word_embeddings", False),
    )


def _gpt2_shape(config: dict[str, Any], folder: str | Path) -> Shape:
    required = {
        "scale_attn_by_inverse_layer_idx": False,
        "scale_attn_weights": True,
        "reorder_and_upcast_attn": False,
        "add_cross_attention": False,
    }
    wrong = [name for name, value in required.items() if config.get(name, value) != value]
    wrong += ["activation_function"] if config.get("activation_function", "gelu_new") != "gelu_new" else []
    if wrong:
        raise BadInput(
            f"{folder} is a GPT-2 with another {wrong[0]} ({config[wrong[0]]!r}), which crawltalk does not run"
        )
    width, heads = config["n_embd"], config["n_head"]
    return Shape(
        family="gpt2",
        vocab_size=config["vocab_size"],
        layers=config["n_layer"],
        width=width,
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        mlp=config.get("n_inner") or 4 * width,
        context=config.get("n_positions") or config["n_ctx"],
        norm_eps=config.get("layer_norm_epsilon", 1e-5),
        tie_embeddings=config.get("tie_word_embeddings", True),
    )


class _Tensors(Mapping[str, Tensor]):
    """The tensors of a folder, each read at its lookup."""

    def __init__(self, folder: Path) -> None:
        index = folder / "model.safetensors.index.json"
        names = ["model.safetensors"]
        if index.exists():
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        self._files: dict[str, Any] = {}
        for name in names:
            if not (folder / name).exists():
                raise MissingInput(f"{folder / name} does not exist; copy the whole folder of the model")
            try:
                file = safe_open(folder / name, "pt")
            except SafetensorError as error:
                raise BadInput(f"{folder / name} is damaged ({error}); copy it again") from None
            self._files |= dict.fromkeys(file.keys(), file)

    def __getitem__(self, name: str) -> Tensor:
        return self._files[name].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def to_hf(model: Transformer) -> dict[str, Tensor]:
    """Weights under Hugging Face's names, as views; the fused matrices in their parts."""
    if model.shape.family == "speedrun":  # there are no names but ours
        tensors = dict(model.named_parameters())
    else:
        tensors = _gpt2_weights(model) if model.shape.family == "gpt2" else _llama_weights(model)
        if model.head is not None:
            tensors["lm_head.weight"] = model.head.weight
    return {name: tensor.detach() for name, tensor in tensors.items()}


def _llama_weights(model: Transformer) -> dict[str, Tensor]:
    shape, weights = model.shape, dict(model.named_parameters())
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    tensors: dict[str, Tensor] = {
        "model.embed_tokens.weight": weights["embedding.weight"],
        "model.norm.weight": weights["norm.weight"],
    }
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
    return tensors


_GPT2_PARTS = {
    "ln_1": "attention_norm",
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.out",
    "ln_2": "mlp_norm",
    "mlp.c_fc": "mlp.up",
    "mlp.c_proj": "mlp.down",
}


def _gpt2_weights(model: Transformer) -> dict[str, Tensor]:
    weights = dict(model.named_parameters())
    tensors: dict[str, Tensor] = {
        "transformer.wte.weight": weights["embedding.weight"],
        "transformer.wpe.weight": weights["positions.weight"],
        "transformer.ln_f.weight": weights["norm.weight"],
        "transformer.ln_f.bias": weights["norm.bias"],
    }
    for layer in range(model.shape.layers):
        for theirs, ours in _GPT2_PARTS.items():
            for kind in ("weight", "bias"):
                weight = weights[f"blocks.{layer}.{ours}.{kind}"]
                # OpenAI's matrices stand the other way round.
                tensors[f"transformer.h.{layer}.{theirs}.{kind}"] = weight.T if weight.ndim == 2 else weight
    return tensors


def load_hf(model: Transformer, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Copy tensors with Hugging Face's names into the model. Raises BadInput if one is missing, unknown, or of
    another shape.
    """
    views = to_hf(model)  # views of the model's own storage: copying into them fills the fused matrices
    names = {name: name for name in tensors}
    if model.shape.family == "gpt2":
        bare = not any(name.startswith("transformer.") for name in tensors)  # OpenAI's own files
        names = {"transformer." * bare + name: name for name in tensors if not name.endswith(_GPT2_BUFFERS)}
    extra = set(names) - set(views) - ({"lm_head.weight"} if model.head is None else set())
    missing = set(views) - set(names)
    if extra or missing:
        raise BadInput(
            f"{source}: weights do not fit config.json (missing {sorted(missing)[:2]}, unknown {sorted(extra)[:2]})"
        )
    for name, view in views.items():
        tensor = tensors[names[name]]
        if view.shape != tensor.shape:
            raise BadInput(f"{source}: {name} is {list(tensor.shape)}, config.json says {list(view.shape)}")
        view.copy_(tensor)


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
