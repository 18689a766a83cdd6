"""Adapters of a model as PEFT's folders (adapter_config.json, adapter_model.safetensors), and merged into its weights.

They stand beside every linear layer of attention and MLP, and never beside a head: one that is the embedding, too,
would become another matrix by merging (peft 0.21 does that without a word).
"""

import copy
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.files import write_atomically
from crawltalk.model.hf import to_hf
from crawltalk.model.lora import LoraLinear
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer, rope_tables
from crawltalk.recipe import Lora
from crawltalk.tokenizer.files import read_object

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "task_type": ("CAUSAL_LM",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
    "use_dora": (False,),
    "use_bdlora": (False,),
    "use_qalora": (False,),
    "lora_bias": (False,),
    "modules_to_save": ([],),
    "layer_replication": ([],),
    "rank_pattern": ({},),
    "alpha_pattern": ({},),
    "trainable_token_indices": ([], {}),
    "target_parameters": ([],),
    "megatron_config": ({},),
    "monteclora_config": ({},),
    "alora_invocation_tokens": ([],),
    "arrow_config": ({},),
}
"""Values, beside null, with which a field of adapter_config.json asks for nothing that we do not compute."""


@dataclass(frozen=True)
class Adapter:
    """What an adapter adds to the weights of a model."""

    factors: Mapping[str, tuple[Tensor, Tensor]]
    """Layer, by Hugging Face's name -> [R, D] and [O, R]."""
    scale: float

    def update(self, layer: str) -> Tensor:
        """What is added to the layer's matrix, [O, D], fp32."""
        down, up = self.factors[layer]
        return self.scale * (up.float() @ down.float())


def add_adapters(model: Transformer, lora: Lora, seed: int) -> None:
    """Freeze the model and put an adapter beside each linear layer of its blocks. Raises BadInput for settings that
    make no sense.
    """
    if lora.rank < 1 or not 0 <= lora.dropout < 1:
        raise BadInput(
            f"lora.rank = {lora.rank}, lora.dropout = {lora.dropout:g}: a rank is 1 or more, and less than all inputs "
            "are dropped"
        )
    if not math.isfinite(lora.scale) or lora.scale <= 0:
        raise BadInput(f"lora.alpha = {lora.alpha}: it must be a number above 0")
    model.requires_grad_(False)
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for index, name in enumerate(name for name in layers if name.startswith("blocks.")):
        parent, _, attribute = name.rpartition(".")
        module = model.get_submodule(parent)
        parts = _parts(model.shape, attribute)
        layer = LoraLinear(getattr(module, attribute), parts, lora.rank, seed * 100_003 + index)
        layer.scale, layer.dropout = lora.scale, lora.dropout
        setattr(module, attribute, layer.to(model.embedding.weight.device))


def _parts(shape: Shape, attribute: str) -> tuple[int, ...]:
    """The outputs of each part of a layer that other libraries have as one layer a part."""
    match attribute:
        case "qkv" if shape.family in ("llama", "qwen3"):
            keys = shape.kv_heads * shape.head_dim
            return shape.heads * shape.head_dim, keys, keys
        case "gate_up":
            return shape.mlp, shape.mlp
        case "qkv":
            return ((shape.heads + 2 * shape.kv_heads) * shape.head_dim,)
        case "up":
            return (shape.mlp,)
    return (shape.width,)


_NAMES = {
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.out": ("self_attn.o_proj",),
    "mlp.gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down": ("mlp.down_proj",),
}
"""Our layer -> those of Llama's and Qwen's families."""
_GPT2_NAMES = {
    "attention.qkv": ("attn.c_attn",),
    "attention.out": ("attn.c_proj",),
    "mlp.up": ("mlp.c_fc",),
    "mlp.down": ("mlp.c_proj",),
}


def _hf_names(shape: Shape, name: str) -> tuple[str, ...]:
    """Hugging Face's names of the parts of `blocks.0.attention.qkv`."""
    _, layer, kind = name.split(".", 2)
    match shape.family:
        case "speedrun":
            return (name,)
        case "gpt2":
            return tuple(f"transformer.h.{layer}.{part}" for part in _GPT2_NAMES[kind])
    return tuple(f"model.layers.{layer}.{part}" for part in _NAMES[kind])


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """The layers that have an adapter, by name."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLinear))


def adapter_of(model: Transformer) -> Adapter:
    """The adapters of a model, copied."""
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    scale = 1.0
    for name, layer in adapted_layers(model):
        scale = layer.scale
        for part, (down, up) in zip(_hf_names(model.shape, name), layer.factors(), strict=True):
            factors[part] = down.detach().clone(), up.detach().clone()
    return Adapter(factors, scale)


def merge(model: Transformer, adapter: Adapter, source: str | Path) -> None:
    """Add an adapter to the matrices of a model, in fp32: most of a small update would be lost in 16 bits. Raises
    BadInput if it belongs to another model, or to its head or embedding.
    """
    weights = to_hf(model)  # views: adding to them fills the fused matrices
    linear = {
        part
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and "." in name
        for part in _hf_names(model.shape, name)
    }
    for layer, (down, up) in adapter.factors.items():
        if layer not in linear:
            reason = "the model has no such layer"
            if layer.endswith(("lm_head", "embed_tokens", "wte")):
                reason = "crawltalk merges adapters of attention and MLP alone"
            raise BadInput(f"{source} has an adapter for {layer}; {reason}")
        weight = weights[f"{layer}.weight"]
        weight = weight.T if model.shape.family == "gpt2" else weight
        if weight.shape != (len(up), down.shape[1]) or up.shape[1] != len(down):
            raise BadInput(
                f"{source}: the adapter of {layer} is {list(up.shape)} x {list(down.shape)}, and the model's matrix "
                f"{list(weight.shape)}; give the model that it was trained on: --base MODEL"
            )
        weight += adapter.update(layer).to(weight)


def attach(model: Transformer, other: Transformer) -> None:
    """Put the adapters of `other`, too, beside the layers of a model of the same shape."""
    for name, layer in list(adapted_layers(other)):
        parent, _, attribute = name.rpartition(".")
        module = model.get_submodule(parent)
        shared = LoraLinear(getattr(module, attribute), layer.parts, 1, layer.seed)
        shared.lora_A, shared.lora_B, shared.scale = layer.lora_A, layer.lora_B, layer.scale
        setattr(module, attribute, shared)


def merge_adapters(model: Transformer) -> None:
    """Add the adapters of a model to its matrices, which are fp32, and remove them."""
    merge(model, adapter_of(model), "the training")
    for name, layer in list(adapted_layers(model)):
        parent, _, attribute = name.rpartition(".")
        plain = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        plain.weight, plain.bias = layer.weight, layer.bias
        setattr(model.get_submodule(parent), attribute, plain)


def merged(model: Transformer) -> Transformer:
    """A copy of the model in fp32 with its adapters merged: what other code reads weights of."""
    whole = copy.deepcopy(model).float()
    whole.rope_cos, whole.rope_sin = (table.to(model.rope_cos.device) for table in rope_tables(model.shape))
    merge_adapters(whole)
    return whole.eval()


def save_adapter(model: Transformer, folder: str | Path, lora: Lora, base: str) -> None:
    """Write the adapters of a model as PEFT does. `base`: the folder of the model that they were trained on."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    adapter = adapter_of(model)
    for layer, (down, up) in adapter.factors.items():
        tensors[f"{_PREFIX}{layer}.lora_A.weight"] = down.contiguous()
        tensors[f"{_PREFIX}{layer}.lora_B.weight"] = up.contiguous()
    write_atomically(folder / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": 2 * lora.rank if lora.alpha is None else lora.alpha,
        "use_rslora": lora.rslora,
        "lora_dropout": lora.dropout,
        "target_modules": sorted({layer.rpartition(".")[2] for layer in adapter.factors}),
        "fan_in_fan_out": model.shape.family == "gpt2",
        "bias": "none",
        "inference_mode": True,
    }
    write_atomically(folder / CONFIG, json.dumps(config, indent=2).encode())


def read_adapter(folder: str | Path) -> tuple[Adapter, str]:
    """PEFT's folder of an adapter, and the name of its base model. Raises MissingInput; BadInput, by the field's name,
    for what crawltalk does not compute.
    """
    folder = Path(folder)
    if not (folder / CONFIG).exists():
        raise MissingInput(f"{folder} has no {CONFIG}; give the folder of an adapter, as PEFT saves it")
    config = read_object(folder / CONFIG)
    for name, values in _NEUTRAL.items():
        value = config.get(name)
        if value is not None and value not in values:
            raise BadInput(
                f"{folder}: {CONFIG} says {name} = {json.dumps(value)[:80]}; crawltalk does not compute that"
            )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or rank < 1 or not isinstance(alpha, int | float):
        raise BadInput(f"{folder}: {CONFIG} says r = {rank!r}, lora_alpha = {alpha!r}; they must be numbers")
    path = folder / WEIGHTS
    if not path.exists():
        raise MissingInput(f"{folder} has no {WEIGHTS}; let PEFT save the adapter as safetensors")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise BadInput(f"{path} is damaged ({error}); copy it again") from None
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, _, factor = name.removeprefix(_PREFIX).removesuffix(".weight").rpartition(".")
        if factor not in ("lora_A", "lora_B") or not name.startswith(_PREFIX) or tensor.ndim != 2:
            raise BadInput(
                f"{path} has {name}, which is no matrix of a LoRA; crawltalk does not compute that"
            )
        pairs.setdefault(layer, {})[factor] = tensor
    if lonely := next((layer for layer, pair in pairs.items() if len(pair) < 2), None):
        raise BadInput(f"{path} has only one matrix for {lonely}; copy it again")
    scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    factors = {layer: (pair["lora_A"], pair["lora_B"]) for layer, pair in pairs.items()}
    return Adapter(factors, scale), str(config.get("base_model_name_or_path") or "")
