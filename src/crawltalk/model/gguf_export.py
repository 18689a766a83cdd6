"""Models as GGUF files, for llama.cpp and what is built on it (format: ggml's docs/gguf.md).

llama.cpp's own converter knows a tokenizer by the hash of what it makes of one text, so it refuses those that
a run has learned.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import quantize
from torch import Tensor

from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import BadInput
from crawltalk.model.gguf import CONTROL, GPT2_NAMES, NAMES, NORMAL, PATTERNS, UNUSED, USER_DEFINED
from crawltalk.model.hf import load_model, to_hf
from crawltalk.model.shape import Shape
from crawltalk.tokenizer.alphabet import to_text

TYPES = {
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}
"""Of matrices; vectors and GPT-2's positions stay in fp32. q8_0: blocks of 32 bytes with a scale in fp16."""
_FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
_BLOCK = 32
_GGUF_NAMES = {theirs: name for names in (NAMES, GPT2_NAMES) for name, theirs in names.items()}


def export_gguf(folder: str | Path, path: str | Path, kind: str = "f16") -> None:
    """Write a model of Qwen3's, Llama's or GPT-2's family with its tokenizer; `kind` is one of `TYPES`.

    Raises BadInput for what llama.cpp does not compute. It knows our split patterns by names: of 1,278 texts
    (English, three languages mixed, characters of many scripts at random) it cut none otherwise. It does not
    bring text into a normal form.
    """
    folder, path = Path(folder), Path(path)
    model, chat = load_model(folder), ChatRenderer.load(folder)
    shape = model.shape
    if shape.family == "speedrun":
        raise BadInput(
            f"{folder} is of the family speedrun, which llama.cpp does not compute; train qwen3, llama or gpt2"
        )
    if shape.rope_scaling is not None:
        raise BadInput(f"{folder} scales its rotary embedding, which is not exported; take the maker's GGUF")
    work = path.with_name(path.name + ".tmp")
    writer = gguf.GGUFWriter(work, "qwen2" if shape.qkv_bias else shape.family)
    writer.add_name(folder.resolve().name)
    writer.add_file_type(_FILE_TYPES[kind])
    _add_shape(writer, shape)
    _add_tokenizer(writer, chat, shape, folder)
    for name, weight in _tensors(shape, to_hf(model)):
        chosen = TYPES[kind]
        if weight.ndim == 1 or name == "position_embd.weight":
            chosen = TYPES["f32"]
        elif kind == "q8_0" and weight.shape[1] % _BLOCK:
            chosen = TYPES["f16"]  # as llama.cpp's own quantisation does
        writer.add_tensor(name, quantize(weight, chosen), raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(work, path)


def _add_shape(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.mlp)
    writer.add_head_count(shape.heads)
    writer.add_vocab_size(shape.vocab_size)
    if shape.family == "gpt2":
        writer.add_layer_norm_eps(shape.norm_eps)
        return
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.norm_eps)


def _add_tokenizer(writer: gguf.GGUFWriter, chat: ChatRenderer, shape: Shape, folder: Path) -> None:
    """The vocabulary, and how a text begins and ends: with the separator of documents, or, of an assistant,
    as its template says.
    """
    tokenizer = chat.tokenizer
    pre = next((name for name, pattern in PATTERNS.items() if pattern == tokenizer.pattern), None)
    if pre is None:
        raise BadInput(f"{folder} has a split pattern that llama.cpp does not support: {tokenizer.pattern}")
    rules = tokenizer.rules
    if rules is not None and rules.data.get("normalizer"):
        raise BadInput(f"{folder} brings text into a normal form, which llama.cpp does not do")
    if pre == "llama-bpe" and rules is not None and not rules.data["model"].get("ignore_merges"):
        pre = "smaug-bpe"  # the same cuts, without whole words first
    plain = (
        {token["content"] for token in rules.data.get("added_tokens") or ()} if rules is not None else set()
    )
    words = {index: (to_text(word), NORMAL) for word, index in tokenizer.vocab.items()}
    words |= {
        index: (word.decode(), USER_DEFINED)
        for word, index in tokenizer.vocab.items()
        if word.decode("utf-8", "replace") in plain
    }
    words |= {index: (name, CONTROL) for name, index in tokenizer.special_tokens.items()}
    listed = [words.get(index, (f"[PAD{index}]", UNUSED)) for index in range(shape.vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([text for text, _ in listed])
    writer.add_token_types([kind for _, kind in listed])
    writer.add_token_merges([f"{to_text(left)} {to_text(right)}" for left, right in tokenizer.merges])
    ends, begin = _ends(folder)
    if rules is not None:
        _add_foreign_ends(writer, chat, begin)
        return
    talks = chat.format is not None and tokenizer.special_tokens[chat.format.end] in ends
    writer.add_bos_token_id(tokenizer.eot if begin is None else begin)
    writer.add_add_bos_token(not talks)
    if chat.format is not None and talks:
        writer.add_eos_token_id(tokenizer.special_tokens[chat.format.end])
        writer.add_chat_template(chat.format.template())
    else:
        writer.add_eos_token_id(tokenizer.eot)


def _add_foreign_ends(writer: gguf.GGUFWriter, chat: ChatRenderer, begin: int | None) -> None:
    """How texts begin and end in a model from elsewhere: as its own folder says."""
    tokenizer = chat.tokenizer
    first = next(iter(tokenizer.begin), begin)
    if first is not None:
        writer.add_bos_token_id(first)
    writer.add_add_bos_token(bool(tokenizer.begin))
    if tokenizer.end_ids:
        writer.add_eos_token_id(tokenizer.eot)
    for name, text in (chat.template.sources if chat.template is not None else {}).items():
        if name == "default":
            writer.add_chat_template(text)


def _ends(folder: Path) -> tuple[list[int], int | None]:
    """The ids that end a reply and the one that begins a text, as config.json has them."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    ends = config.get("eos_token_id")
    return (ends if isinstance(ends, list) else [] if ends is None else [ends]), config.get("bos_token_id")


def _tensors(shape: Shape, weights: dict[str, Tensor]) -> Iterator[tuple[str, np.ndarray]]:
    """Names and values, fp32, as llama.cpp has them."""
    for name, tensor in weights.items():
        values = tensor.float()
        if shape.family == "gpt2" and ".h." in name and values.ndim == 2:
            values = values.T  # OpenAI's matrices stand the other way round
        if shape.family == "llama" and ("q_proj" in name or "k_proj" in name):
            values = permute(values, shape.heads if "q_proj" in name else shape.kv_heads)
        yield gguf_name(name), np.ascontiguousarray(values.numpy())


def gguf_name(name: str) -> str:
    """ "model.layers.3.self_attn.q_proj.weight" -> "blk.3.attn_q.weight"."""
    part, _, kind = name.rpartition(".")
    for prefix in ("model.layers.", "transformer.h."):
        if part.startswith(prefix):
            layer, _, rest = part.removeprefix(prefix).partition(".")
            return f"blk.{layer}.{_GGUF_NAMES[rest]}.{kind}"
    return f"{_GGUF_NAMES[part]}.{kind}"


def permute(weight: Tensor, heads: int) -> Tensor:
    """Our order of rotary pairs, (0, E/2), (1, E/2 + 1), ..., in llama.cpp's for Llama, (0, 1), (2, 3), ..."""
    rows, columns = weight.shape
    return weight.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)
