"""Weights in Hugging Face's folder layout (config.json, model.safetensors), for the families of Qwen3, Llama
(with Qwen2 and Mistral) and GPT-2; language models, and reward models as classifiers with one label.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from crawltalk.core.errors import BadInput, MissingInput, TooBig
from crawltalk.core.files import write_atomically
from crawltalk.model.config import classifier_config, config_of, read_config, shape_of, shape_of_classifier
from crawltalk.model.reward import RewardModel
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer, rope_tables
from crawltalk.run.machine import memory_bytes
from crawltalk.tokenizer.files import read_object

SHARD_BYTES = 5_000_000_000
"""Most bytes of one file of weights, unless a single tensor is larger."""
_BUFFERS = (".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq")
"""What older files hold beside the weights: OpenAI's causal masks, and rotary frequencies, which config.json says."""
_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_LFS = b"version https://git-lfs"

Model = TypeVar("Model", bound=Transformer)


def save_model(
    model: Transformer,
    folder: str | Path,
    *,
    eos: int | list[int] | None,
    bos: int | None = None,
    pad: int | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the model in fp32, in several files if it is large. `eos` ends a document or reply. `pad`, of a reward
    model: the token that `transformers` overlooks at the end of a text; scored texts end with another.
    """
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
    if isinstance(model, RewardModel):
        config = classifier_config(config) | {"pad_token_id": pad}
    write_atomically(folder / "config.json", json.dumps(config, indent=2).encode())


def load_model(folder: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Transformer:
    """Read a model, tensor by tensor from memory-mapped files.

    Raises MissingInput; BadInput with the reason for another kind of model, or damaged files; TooBig before
    anything is read.
    """
    folder = Path(folder)
    shape = shape_of(read_config(folder), folder)
    _check_memory(_empty(Transformer, shape, dtype), folder, device)
    tensors = _Tensors(folder)
    if shape.tie_embeddings and _has_own_head(tensors):
        shape = dataclasses.replace(shape, tie_embeddings=False)
    return _filled(_empty(Transformer, shape, dtype), tensors, folder, device)


def load_reward_model(
    folder: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> RewardModel:
    """Read a classifier with one label, as `load_model` reads a language model. Raises BadInput for what is none."""
    folder = Path(folder)
    model = _empty(RewardModel, shape_of_classifier(read_config(folder), folder), dtype)
    _check_memory(model, folder, device)
    return _filled(model, _Tensors(folder), folder, device)


def _empty(kind: type[Model], shape: Shape, dtype: torch.dtype) -> Model:
    """A model whose weights have no memory yet."""
    with torch.device("meta"):
        return kind(shape).to(dtype)


def _filled(model: Model, tensors: Mapping[str, Tensor], folder: Path, device: str) -> Model:
    """An empty model with its weights."""
    dtype = model.embedding.weight.dtype
    model.to_empty(device=device)
    model.rope_cos, model.rope_sin = (table.to(device, dtype) for table in rope_tables(model.shape))
    load_hf(model, tensors, folder)
    return model.eval()


def _has_own_head(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the files hold a head that is not the embedding. `transformers` then believes the files and not
    config.json.
    """
    heads = [name for name in tensors if name.endswith("lm_head.weight")]
    words = [name for name in tensors if name.endswith(("embed_tokens.weight", "wte.weight"))]
    if not heads or not words:
        return False
    return not torch.equal(tensors[heads[0]], tensors[words[0]])


def _check_memory(model: Transformer, folder: Path, device: str) -> None:
    count = sum(weight.numel() for weight in model.parameters())
    width = next(model.parameters()).element_size()
    have = memory_bytes() if device == "cpu" else torch.cuda.mem_get_info(device)[0]
    if count * width > have:
        raise TooBig(
            f"{folder} has {count:,} parameters of {width} bytes = {count * width / 1e9:,.1f} GB, and the memory has "
            f"{have / 1e9:,.1f} GB; take a smaller model or a larger machine"
        )


class _Tensors(Mapping[str, Tensor]):
    """The tensors of a folder, each read at its lookup."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, Any] = {}
        for name in _weight_files(folder):
            path = folder / name
            if not path.exists():
                raise MissingInput(f"{path} does not exist; copy the whole folder of the model")
            with path.open("rb") as file:
                if file.read(len(_LFS)) == _LFS:
                    raise BadInput(
                        f"{path} is a Git LFS pointer and not the weights; fetch them in that folder with: git lfs pull"
                    )
            try:
                opened = safe_open(path, "pt")
            except (SafetensorError, OSError) as error:
                raise BadInput(f"{path} is damaged ({error}); copy it again") from None
            self._files |= dict.fromkeys(opened.keys(), opened)

    def __getitem__(self, name: str) -> Tensor:
        return self._files[name].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _weight_files(folder: Path) -> list[str]:
    """The names of the files that hold the weights, the same as `transformers` takes."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").exists() or not index.exists():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        if pickled and not (folder / "model.safetensors").exists():
            raise BadInput(
                f"{folder} has its weights in {pickled[0]}, a format that can run programs, which crawltalk does not "
                "read; take the model as safetensors (transformers writes it: save_pretrained)"
            )
        return ["model.safetensors"]
    named = read_object(index).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise BadInput(f"{index} has no weight_map; copy it again")
    names = sorted({str(name) for name in named.values()})
    if any(Path(name).name != name for name in names):
        raise BadInput(f"{index} names files outside its folder; copy it again")
    return names


def to_hf(model: Transformer) -> dict[str, Tensor]:
    """Weights under Hugging Face's names, as views; the fused matrices in their parts."""
    if model.shape.family == "speedrun":  # there are no names but ours
        tensors = dict(model.named_parameters())
    else:
        tensors = _gpt2_weights(model) if model.shape.family == "gpt2" else _llama_weights(model)
        if model.head is not None:
            tensors["lm_head.weight"] = model.head.weight
        if isinstance(model, RewardModel):
            tensors["score.weight"] = model.score.weight
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
        if shape.qkv_bias:
            biases = weights[ours + "attention.qkv.bias"].split((queries, keys, keys))
            tensors |= {
                f"{theirs}self_attn.{part}_proj.bias": bias for part, bias in zip("qkv", biases, strict=True)
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
    names = {name: name for name in tensors if not name.endswith(_BUFFERS)}
    prefix = {"gpt2": "transformer.", "speedrun": ""}.get(model.shape.family, "model.")
    if not any(name.startswith(prefix) for name in names):  # as a model without its head is saved
        names = {name if name in views else prefix + name: name for name in names}
    extra = set(names) - set(views) - ({"lm_head.weight"} if model.head is None else set())
    missing = set(views) - set(names)
    if extra or missing:
        raise BadInput(
            f"{source}: weights do not fit config.json (missing {sorted(missing)[:2]}, unknown {sorted(extra)[:2]})"
        )
    for name, view in views.items():
        tensor = tensors[names[name]]
        if tensor.dtype not in _DTYPES:
            raise BadInput(
                f"{source}: {name} is stored as {str(tensor.dtype).removeprefix('torch.')}: quantised weights, which "
                "crawltalk reads from GGUF files only"
            )
        if view.shape != tensor.shape:
            raise BadInput(f"{source}: {name} is {list(tensor.shape)}, config.json says {list(view.shape)}")
        view.copy_(tensor)
