"""GGUF files of Llama's architecture (llama.cpp), read and dequantised into a folder in Hugging Face's
layout.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from torch import Tensor

from crawltalk.chat.format import from_template
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import BadInput
from crawltalk.model.hf import load_hf, save_model
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
from crawltalk.tokenizer import Tokenizer, patterns

PATTERNS = {
    "smollm": patterns.SMOLLM,
    "gpt-2": patterns.GPT2,
    "default": patterns.GPT2,
    "llama-bpe": patterns.GPT4,
    "qwen2": patterns.GPT4_DIGITS,
    "gpt-4o": patterns.O200K,
}
"""llama.cpp's names of split patterns."""
CONTROL = 3
"""Token type of control tokens (gguf.TokenType)."""
NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def import_gguf(path: str | Path, folder: str | Path) -> None:
    """Write a Hugging Face folder in fp32 with the tokenizer. Raises BadInput for other kinds of models."""
    path, folder = Path(path), Path(folder)
    try:
        reader = GGUFReader(path)
    except (ValueError, IndexError, OSError) as error:
        raise BadInput(f"{path} is not a GGUF file: {error}") from None
    fields: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
    architecture = fields.get("general.architecture")
    if architecture != "llama":
        raise BadInput(f"{path} is of architecture {architecture!r}; crawltalk imports llama")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    if "rope_freqs.weight" in tensors:
        raise BadInput(
            f"{path} has scaled rotary frequencies; import the model's Hugging Face folder instead"
        )
    heads, kv_heads = fields["llama.attention.head_count"], fields["llama.attention.head_count_kv"]
    width = fields["llama.embedding_length"]
    shape = Shape(
        family="llama",
        vocab_size=len(fields["tokenizer.ggml.tokens"]),
        layers=fields["llama.block_count"],
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=fields.get("llama.rope.dimension_count", width // heads),
        mlp=fields["llama.feed_forward_length"],
        context=fields["llama.context_length"],
        rope_theta=fields.get("llama.rope.freq_base", 10_000.0),
        norm_eps=round(fields["llama.attention.layer_norm_rms_epsilon"], 9),  # stored as fp32
        tie_embeddings="output.weight" not in tensors,
    )
    weights = {}
    for name, tensor in tensors.items():
        new_name = hf_name(name, path)
        values = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
        if ".attn_q." in name or ".attn_k." in name:
            values = unpermute(values, heads if ".attn_q." in name else kv_heads)
        weights[new_name] = values
    model = Transformer(shape)
    load_hf(model, weights, path)
    chat = read_tokenizer(fields, path)
    chat.save(folder)
    eos = fields.get("tokenizer.ggml.eos_token_id", chat.tokenizer.eot)
    save_model(model, folder, eos=eos, bos=fields.get("tokenizer.ggml.bos_token_id"))


def hf_name(name: str, path: str | Path) -> str:
    """ "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight"."""
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", name)
    if match is None or match[2] not in NAMES:
        raise BadInput(f"{path} holds a tensor that Llama's shape does not have: {name}")
    layer = f"model.layers.{match[1]}." if match[1] else ""
    return f"{layer}{NAMES[match[2]]}.weight"


def unpermute(weight: Tensor, heads: int) -> Tensor:
    """Undo llama.cpp's order of rotary pairs, (0, 1), (2, 3), ..., for ours, (0, E/2), (1, E/2 + 1), ..."""
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def read_tokenizer(fields: dict[str, Any], path: str | Path) -> ChatRenderer:
    """The tokenizer that a GGUF file carries, with its chat format."""
    pre = fields.get("tokenizer.ggml.pre", "default")
    if fields.get("tokenizer.ggml.model") != "gpt2" or pre not in PATTERNS:
        raise BadInput(
            f"{path} has a tokenizer that crawltalk does not import: {fields.get('tokenizer.ggml.model')}, {pre}"
        )
    vocab: list[str] = fields["tokenizer.ggml.tokens"]
    kinds = fields["tokenizer.ggml.token_type"]
    specials = {
        text: index for index, (text, kind) in enumerate(zip(vocab, kinds, strict=True)) if kind == CONTROL
    }
    merges = [
        (left, right)
        for left, _, right in (merge.partition(" ") for merge in fields["tokenizer.ggml.merges"])
    ]
    tokenizer = Tokenizer.from_parts(vocab, merges, PATTERNS[pre], specials)
    return ChatRenderer(tokenizer, from_template(fields.get("tokenizer.chat_template", ""), specials))
