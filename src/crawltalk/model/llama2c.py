"""Models of llama2.c (Karpathy 2023): one file of weights (`run.c`, version 0), and beside it one of its
tokens.

    7 x int32   width, mlp, layers, heads, key/value heads, tokens (negative: the head is not the embedding), context
    fp32        embedding; for all layers together each of: attention norm, q, k, v, out, mlp norm, gate, down, up;
                the last norm; rotary tables; the head

The tokens are those of SentencePiece: a byte has a token `<0xNN>` of its own beside the characters that
occurred.
"""

import struct
from pathlib import Path

import numpy as np
import torch

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.model.gguf import unpermute
from crawltalk.model.hf import load_hf, save_model
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
from crawltalk.tokenizer import Tokenizer

_HEADER = struct.Struct("<7i")
_BEGIN, _END, _FIRST_BYTE = 1, 2, 3
"""Ids of <s>, </s> and <0x00>."""


def import_llama2c(path: str | Path, folder: str | Path) -> None:
    """Write a llama2.c model as a folder in Hugging Face's layout. Its tokens are read from tok*.bin in the same
    folder.
    """
    path, folder = Path(path), Path(folder)
    model = read_llama2c(path)
    tokens = sorted(path.parent.glob("tok*.bin"))
    if not tokens:
        raise MissingInput(f"{path.parent} has no tok*.bin; put the tokenizer of {path.name} there")
    read_tokens(tokens[0], model.shape.vocab_size).save(folder)
    save_model(model, folder, eos=_END, bos=_BEGIN)


def read_llama2c(path: str | Path) -> Transformer:
    """Read the model in a llama2.c file. Raises BadInput if its size does not fit its header."""
    path = Path(path)
    data = path.read_bytes()
    if len(data) < _HEADER.size:
        raise BadInput(f"{path} is too short for a model of llama2.c")
    width, mlp, layers, heads, kv_heads, tokens, context = _HEADER.unpack_from(data)
    tied, tokens = tokens > 0, abs(tokens)
    if min(width, mlp, layers, heads, kv_heads, tokens, context) <= 0 or width % heads or heads % kv_heads:
        raise BadInput(f"{path} is not a model of llama2.c: its header is {_HEADER.unpack_from(data)}")
    size = width // heads
    keys = kv_heads * size
    parts = {
        "self_attn.q_proj": (width, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, width),
        "post_attention_layernorm": (width,),
        "mlp.gate_proj": (mlp, width),
        "mlp.down_proj": (width, mlp),
        "mlp.up_proj": (mlp, width),
    }
    order: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens", (tokens, width))]
    for name, dimensions in {"input_layernorm": (width,), **parts}.items():
        order += [(f"model.layers.{layer}.{name}", dimensions) for layer in range(layers)]
    order += [("model.norm", (width,)), ("", (2, context, size // 2))]
    order += [] if tied else [("lm_head", (tokens, width))]
    needed = _HEADER.size + 4 * sum(int(np.prod(dimensions)) for _, dimensions in order)
    if len(data) != needed:
        raise BadInput(f"{path} has {len(data):,} bytes, its header says {needed:,}; copy it again")
    weights, offset = {}, _HEADER.size
    for name, dimensions in order:
        count = int(np.prod(dimensions))
        weight = torch.from_numpy(np.frombuffer(data, "<f4", count, offset).reshape(dimensions).copy())
        offset += 4 * count
        if name.endswith(("q_proj", "k_proj")):
            weight = unpermute(weight, len(weight) // size)
        weights[f"{name}.weight"] = weight
    del weights[".weight"]  # the rotary tables are computed
    shape = Shape(
        family="llama",
        vocab_size=tokens,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=size,
        mlp=mlp,
        context=context,
        norm_eps=1e-5,
        tie_embeddings=tied,
    )
    model = Transformer(shape).eval()
    load_hf(model, weights, path)
    return model


def read_tokens(path: str | Path, count: int) -> Tokenizer:
    """The tokens in a tok*.bin. Where a byte is a character with a token of its own, `<0xNN>` becomes a
    control token.
    """
    data, offset = Path(path).read_bytes(), 4
    pieces: list[bytes] = []
    for _ in range(count):
        if offset + 8 > len(data):
            raise BadInput(
                f"{path} holds {len(pieces)} tokens, the model has {count}; take the tokenizer that belongs to it"
            )
        _, size = struct.unpack_from("<fi", data, offset)
        pieces.append(data[offset + 8 : offset + 8 + size])
        offset += 8 + size
    words = {piece: index for index, piece in enumerate(pieces) if index >= _FIRST_BYTE + 256}
    specials = {"<unk>": 0, "<s>": _BEGIN, "</s>": _END}
    for value in range(256):
        if bytes([value]) in words:
            specials[f"<0x{value:02X}>"] = _FIRST_BYTE + value
        else:
            words[bytes([value])] = _FIRST_BYTE + value
    return Tokenizer(words, None, "(?s:.+)", specials, eot=_BEGIN)
