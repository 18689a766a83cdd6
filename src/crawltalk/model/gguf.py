"""GGUF files (llama.cpp) of Llama's, Qwen2's, Qwen3's and GPT-2's architectures, read and dequantised into a folder in
Hugging Face's layout.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from gguf import GGUFEndian, GGUFReader, ReaderTensor
from gguf.quants import dequantize
from torch import Tensor

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.model.hf import load_hf, save_model
from crawltalk.model.shape import LinearScaling, Shape
from crawltalk.model.transformer import Transformer
from crawltalk.tokenizer import files, patterns

PATTERNS = {
    "smollm": patterns.SMOLLM,
    "gpt-2": patterns.GPT2,
    "llama-bpe": patterns.GPT4,
    "qwen2": patterns.GPT4_DIGITS,
    "gpt-4o": patterns.O200K,
}
"""llama.cpp's names of split patterns."""
_SAME_AS = {
    **dict.fromkeys(("llama3", "llama-v3", "falcon3", "pixtral", "smaug-bpe", "dbrx"), "llama-bpe"),
    **dict.fromkeys(("deepseek-r1-qwen", "stablelm2", "megrez"), "qwen2"),
    **dict.fromkeys(("phi-2", "mpt", "olmo", "jais", "roberta-bpe"), "gpt-2"),
    **dict.fromkeys(("starcoder", "refact", "command-r", "codeshell"), "smollm"),
    "llama4": "gpt-4o",
}
_DEFAULT = (
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    r"[0-9][0-9][0-9]",
)
"""How llama.cpp cuts, one after the other, where a file names no way or the name "default" (`llm_tokenizer_bpe`)."""
_WHOLE_WORDS = ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral")
"""Vocabularies in which a chunk that is a token is not merged; their texts begin with BOS."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = range(1, 6)
"""Token types (gguf.TokenType)."""
_CONTROL_SHAPED = re.compile(r"<\|.*\|>|</?s>")
"""Control tokens where a file does not say which they are."""
_ENDS = ("<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>")
"""Control tokens that end a reply in llama.cpp, whatever else the file says."""
NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
GPT2_NAMES = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
_BIASED = {"llama": (), "qwen3": (), "qwen2": ("attn_q", "attn_k", "attn_v"), "gpt2": (*GPT2_NAMES,)}
"""The architectures that are read, and which of their tensors may have biases."""
_READ = {
    *("block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size"),
    *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
    *("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"),
    *("rope.dimension_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor"),
    *("rope.scaling.original_context_length", "rope.scaling.finetuned", "rope.scale_linear"),
    *(
        "tensor_data_layout",
        "attention.causal",
        "expert_count",
        "expert_used_count",
        "attention.sliding_window",
    ),
}
_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


def import_gguf(path: str | Path, folder: str | Path) -> None:
    """Write a Hugging Face folder in fp32 with the tokenizer. Of a file in several parts, `path` is any part.
    Raises BadInput for other kinds of models, by the key that says so.
    """
    path, folder = Path(path), Path(folder)
    fields, tensors = _read(path)
    architecture = fields.get("general.architecture")
    if architecture not in _BIASED:
        raise BadInput(f"{path} is of architecture {architecture!r}; crawltalk imports {', '.join(_BIASED)}")
    if "rope_freqs.weight" in tensors:
        raise BadInput(
            f"{path} has scaled rotary frequencies; import the model's Hugging Face folder instead"
        )
    shape = _Keys(fields, path).shape(tensors)
    weights: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new_name = hf_name(name, path, architecture)
        values = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
        if architecture == "llama" and name.endswith(("attn_q.weight", "attn_k.weight")):
            values = unpermute(values, shape.heads if "attn_q" in name else shape.kv_heads)
        if architecture == "gpt2" and name.startswith("blk.") and values.ndim == 2:
            values = values.T  # OpenAI's matrices stand the other way round
        weights[new_name] = values
    model = Transformer(shape)
    load_hf(model, weights, path)
    data, config = read_tokenizer(fields, path)
    files.write_foreign(folder, data, config)
    ids = {token["content"]: token["id"] for token in data["added_tokens"]}
    ends = [fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    ends += [ids[name] for name in _ENDS if name in ids]
    known = list(dict.fromkeys(index for index in ends if index is not None))
    save_model(
        model, folder, eos=known or None, bos=fields.get("tokenizer.ggml.bos_token_id") if config else None
    )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, ReaderTensor]]:
    """The fields of a file and the tensors of all its parts."""
    paths = [path]
    if parts := _SPLIT.fullmatch(path.name):
        paths = [
            path.with_name(f"{parts[1]}-{number:05d}-of-{parts[3]}.gguf")
            for number in range(1, int(parts[3]) + 1)
        ]
    fields: dict[str, Any] = {}
    tensors: dict[str, ReaderTensor] = {}
    for part in paths:
        if not part.exists():
            raise MissingInput(f"{part} does not exist; all {len(paths)} parts of the model must be there")
        try:
            reader = GGUFReader(part)
            found = {name: field.contents() for name, field in reader.fields.items()}
        except (ValueError, IndexError, OSError, KeyError, OverflowError, MemoryError) as error:
            raise BadInput(f"{part} is not a GGUF file: {str(error)[:200]}") from None
        if reader.endianess == GGUFEndian.BIG:
            raise BadInput(f"{part} is for big-endian machines; take the file for little-endian ones")
        fields = found | fields  # those of the first part are the model's
        tensors |= {tensor.name: tensor for tensor in reader.tensors}
    if fields.get("split.count", 1) not in (0, len(paths)):
        raise BadInput(
            f"{path} is one of {fields['split.count']} parts, whose names must end in -00001-of-0000N.gguf"
        )
    return fields, tensors


class _Keys:
    """The keys of a file, those of its architecture without its name."""

    def __init__(self, fields: Mapping[str, Any], path: Path) -> None:
        self.path, self.architecture = path, fields["general.architecture"]
        prefix = f"{self.architecture}."
        self.values = {
            name.removeprefix(prefix): value for name, value in fields.items() if name.startswith(prefix)
        }
        self.tokens = fields.get("tokenizer.ggml.tokens")

    def refusal(self, name: str) -> BadInput:
        value = repr(self.values.get(name))[:80]
        return BadInput(
            f"{self.path} says {self.architecture}.{name} = {value}, which crawltalk does not compute; import the "
            "model's Hugging Face folder instead"
        )

    def number(self, name: str, default: float | None = None) -> Any:
        value = self.values.get(name, default)
        if value is None:
            raise BadInput(f"{self.path} has no {self.architecture}.{name}; the file is not complete")
        if not isinstance(value, int | float) or value <= 0:
            raise self.refusal(name)
        return value

    def shape(self, tensors: Mapping[str, Any]) -> Shape:
        if unknown := sorted(self.values.keys() - _READ):
            raise self.refusal(unknown[0])
        context, heads = self.number("context_length"), self.number("attention.head_count")
        width = self.number("embedding_length")
        size = self.number("attention.key_length", width // heads)
        gpt2 = self.architecture == "gpt2"
        family: Literal["gpt2", "qwen3", "llama"] = (
            "gpt2" if gpt2 else "qwen3" if self.architecture == "qwen3" else "llama"
        )
        wrong = {
            "attention.value_length": self.values.get("attention.value_length", size) != size,
            "rope.dimension_count": not gpt2 and self.values.get("rope.dimension_count", size) != size,
            "expert_count": self.values.get("expert_count", 0) != 0,
            "attention.causal": self.values.get("attention.causal", True) is not True,
            "attention.sliding_window": 0 < self.values.get("attention.sliding_window", 0) < context,
            "rope.scaling.type": self.values.get("rope.scaling.type", "none") not in ("none", "linear"),
        }
        for name, is_wrong in wrong.items():
            if is_wrong:
                raise self.refusal(name)
        if self.tokens is None:
            raise BadInput(
                f"{self.path} has no tokenizer.ggml.tokens; crawltalk imports models with their tokens"
            )
        factor = 1.0
        if self.values.get("rope.scaling.type") == "linear" or "rope.scale_linear" in self.values:
            factor = float(self.number("rope.scaling.factor", self.values.get("rope.scale_linear", 1.0)))
        epsilon = "attention.layer_norm_epsilon" if gpt2 else "attention.layer_norm_rms_epsilon"
        return Shape(
            family=family,
            vocab_size=len(self.tokens),
            layers=self.number("block_count"),
            width=width,
            heads=heads,
            kv_heads=self.number("attention.head_count_kv", heads),
            head_dim=size,
            mlp=self.number("feed_forward_length"),
            context=context,
            rope_theta=10_000.0 if gpt2 else float(self.number("rope.freq_base", 10_000.0)),
            rope_scaling=None if factor == 1.0 else LinearScaling(factor=factor),
            norm_eps=round(self.number(epsilon), 9),  # stored as fp32
            tie_embeddings="output.weight" not in tensors,
            qkv_bias="blk.0.attn_q.bias" in tensors,
        )


def hf_name(name: str, path: str | Path, architecture: str = "llama") -> str:
    """ "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight"."""
    names, layers = (GPT2_NAMES, "transformer.h.") if architecture == "gpt2" else (NAMES, "model.layers.")
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    if (
        match is None
        or match[2] not in names
        or (match[3] == "bias" and match[2] not in _BIASED[architecture])
    ):
        raise BadInput(f"{path} holds a tensor that {architecture}'s shape does not have: {name}")
    layer = f"{layers}{match[1]}." if match[1] else ""
    return f"{layer}{names[match[2]]}.{match[3]}"


def unpermute(weight: Tensor, heads: int) -> Tensor:
    """Undo llama.cpp's order of rotary pairs, (0, 1), (2, 3), ..., for ours, (0, E/2), (1, E/2 + 1), ..."""
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def read_tokenizer(fields: Mapping[str, Any], path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tokenizer.json and the tokenizer_config.json of the tokenizer that a GGUF file carries."""
    model, pre = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre", "default")
    if model != "gpt2" or (pre != "default" and _SAME_AS.get(pre, pre) not in PATTERNS):
        raise BadInput(f"{path} has a tokenizer that crawltalk does not import: {model}, {pre}")
    vocab: list[str] = fields["tokenizer.ggml.tokens"]
    kinds = fields.get("tokenizer.ggml.token_type") or [
        CONTROL if _CONTROL_SHAPED.fullmatch(text) else NORMAL for text in vocab
    ]
    if len(kinds) != len(vocab):
        raise BadInput(f"{path} has {len(vocab)} tokens and {len(kinds)} types of tokens; copy it again")
    named = {
        name: fields.get(f"tokenizer.ggml.{key}_token_id")
        for name, key in (("bos_token", "bos"), ("eos_token", "eos"), ("pad_token", "padding"))
    }
    added = [
        {
            **{"id": index, "content": text, "special": kind != USER_DEFINED},
            **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
        }
        for index, (text, kind) in enumerate(zip(vocab, kinds, strict=True))
        if kind in (UNKNOWN, CONTROL, USER_DEFINED)
    ]
    cuts = _DEFAULT if pre == "default" else (PATTERNS[_SAME_AS.get(pre, pre)],)
    data = files.tokenizer_json(
        {text: index for index, text in enumerate(vocab) if kinds[index] == NORMAL},
        [merge.split(" ", 1) for merge in fields.get("tokenizer.ggml.merges", ())],
        cuts,
        added,
        ignore_merges=pre in _WHOLE_WORDS,
    )
    names = {token["id"]: token["content"] for token in added}
    config: dict[str, Any] = {name: names[index] for name, index in named.items() if index in names}
    begins = fields.get("tokenizer.ggml.add_bos_token", pre in _WHOLE_WORDS)
    config["add_bos_token"] = bool(begins) and "bos_token" in config
    templates = {
        name.removeprefix("tokenizer.chat_template").removeprefix(".") or "default": text
        for name, text in fields.items()
        if name == "tokenizer.chat_template" or name.startswith("tokenizer.chat_template.")
    }
    if templates:
        config["chat_template"] = [{"name": name, "template": text} for name, text in templates.items()]
    return data, config
