"""Models for other programs, judged by those programs."""

import json
import random
import urllib.request
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers
from gguf import GGUFReader

from crawltalk import Run
from crawltalk.chat.render import ChatRenderer
from crawltalk.cli import main
from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.model.gguf import import_gguf
from crawltalk.model.gguf_export import TYPES, export_gguf
from crawltalk.model.hf import load_model, save_model
from crawltalk.model.shape import Shape
from crawltalk.recipe import Family
from crawltalk.tokenizer import Tokenizer
from crawltalk.tokenizer.bpe import train
from crawltalk.tokenizer.patterns import GPT4, splitter
from support.conversations import CALLING, PLAIN, TOOLS, as_rows
from support.models import random_model

TEXT = (Path(__file__).parents[2] / "LICENSE").read_text(encoding="utf-8")
TOKENIZER = train([TEXT], 400, "gpt4")
FAMILIES: tuple[Family, ...] = ("qwen3", "llama", "gpt2")


def shape_of(family: Family, **changes: Any) -> Shape:
    sizes = {
        "layers": 2,
        "width": 64,
        "heads": 4,
        "kv_heads": 4 if family == "gpt2" else 2,
        "head_dim": 16,
        "mlp": 96,
    }
    return Shape(family=family, **({"vocab_size": TOKENIZER.vocab_size, "context": 64} | sizes | changes))


def save_random(folder: Path, shape: Shape, tokenizer: Tokenizer = TOKENIZER) -> None:
    save_model(random_model(shape), folder, eos=tokenizer.eot)
    ChatRenderer(tokenizer).save(folder)


class LlamaCpp:
    """llama.cpp's server on one file."""

    def __init__(self, path: Path) -> None:
        llama = pytest.importorskip("xllamacpp", reason="llama.cpp is not here: pip install --group test")
        settings = llama.CommonParams()
        settings.model.path = str(path)
        settings.n_ctx, settings.n_parallel, settings.cpuparams.n_threads = 256, 1, 2
        settings.use_jinja = True
        settings.cache_type_k = settings.cache_type_v = llama.ggml_type.GGML_TYPE_F32  # as we compute
        settings.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.server = llama.Server(settings)

    def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        data = json.dumps(fields).encode()
        request = urllib.request.Request(
            f"{self.server.listening_address}/{verb}", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)

    def complete(self, prompt: str | list[int], tokens: int) -> list[int]:
        return self.ask("completion", prompt=prompt, n_predict=tokens, temperature=0, return_tokens=True)[
            "tokens"
        ]


@torch.no_grad()
def greedy(folder: Path, prompt: list[int], tokens: int) -> list[int]:
    model, ids = load_model(folder), list(prompt)
    for _ in range(tokens):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_llama_cpp_says_what_our_model_says(tmp_path, family, tied):
    save_random(tmp_path, shape_of(family, tie_embeddings=tied))
    export_gguf(tmp_path, tmp_path / "model.gguf", "f32")
    peer = LlamaCpp(tmp_path / "model.gguf")
    for text in ("The journey of a page", "tokens", "It"):
        prompt = TOKENIZER.encode(text)
        theirs, ours = peer.complete(prompt, 24), greedy(tmp_path, prompt, 24)
        end = next(
            (index + 1 for index, token in enumerate(ours) if token in ChatRenderer(TOKENIZER).stop_ids), 24
        )
        assert theirs == ours[:end]


def test_llama_cpp_writes_a_conversation_as_we_do(tmp_path):
    chat = ChatRenderer(TOKENIZER)
    save_model(random_model(shape_of("qwen3")), tmp_path, eos=TOKENIZER.special_tokens["<|im_end|>"])
    chat.save(tmp_path)
    export_gguf(tmp_path, tmp_path / "model.gguf", "f32")
    peer = LlamaCpp(tmp_path / "model.gguf")
    for messages, tools in ((PLAIN[:2], []), (PLAIN[1:2], TOOLS), (CALLING, TOOLS)):
        described = [tool.described() for tool in tools]
        text = peer.ask("apply-template", messages=as_rows(messages), tools=described)["prompt"]
        assert text == TOKENIZER.decode(chat.encode_chat(messages, tools=tools, add_generation_prompt=True))


def strings() -> list[str]:
    """Parts of a text, and characters of many scripts at random."""
    rng = random.Random(0)
    odd = [
        *range(9, 14),
        *range(160, 0x250),
        *range(0x370, 0x530),
        *range(0x5D0, 0x700),
        *range(0x900, 0xA00),
    ]
    odd += [*range(0x2000, 0x2070), *range(0x3040, 0x3100), *range(0xAC00, 0xAD00), *range(0x1F600, 0x1F640)]
    usual = [*range(32, 127), *b"      \n\n''''0123456789"]
    mixed = [
        "".join(chr(rng.choice(odd if rng.random() < 0.3 else usual)) for _ in range(60)) for _ in range(60)
    ]
    return [*mixed, *(TEXT[start : start + 500] for start in range(0, 4000, 500))]


@pytest.mark.parametrize("pattern", ["gpt2", "gpt2-digits", "gpt4", "gpt4-digits", "o200k"])
def test_llama_cpp_cuts_text_as_we_do(tmp_path, pattern):
    tokenizer = train([TEXT, *strings()], 600, pattern)
    save_random(tmp_path, shape_of("qwen3", vocab_size=tokenizer.vocab_size), tokenizer)
    export_gguf(tmp_path, tmp_path / "model.gguf", "f32")
    peer = LlamaCpp(tmp_path / "model.gguf")
    for text in strings():
        assert peer.ask("tokenize", content=text, parse_special=False)["tokens"] == tokenizer.encode(text)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TYPES)
def test_llama_cpp_talks_as_a_trained_assistant_and_goes_on_as_its_base_model(nano, tmp_path, dtype):
    for stage in ("pretrain", "sft"):
        assert (
            main(
                [
                    "export",
                    str(nano / stage),
                    "--to",
                    "gguf",
                    "--out",
                    str(tmp_path / stage),
                    "--dtype",
                    dtype,
                ]
            )
            == 0
        )
    base, assistant = LlamaCpp(tmp_path / "pretrain"), LlamaCpp(tmp_path / "sft")
    run, question = Run(nano), "What is dysprosium?"
    messages = [{"role": "user", "content": question}]
    answer = assistant.ask("v1/chat/completions", messages=messages, max_tokens=48, temperature=0)
    reply = answer["choices"][0]["message"]["content"]
    gone_on = run.tokenizer.decode(base.complete("Dysprosium", 24))
    expected = run.generate("Dysprosium", temperature=0.0, max_tokens=24)[0]
    if dtype == "q8_0":  # another model, a little
        assert gone_on[:12] == expected[:12]
    else:
        assert reply == run.chat(question)
        assert gone_on == expected


def test_what_is_exported_is_what_is_imported(tmp_path):
    save_random(tmp_path, shape_of("llama", rope_theta=50_000.0, norm_eps=1e-5))
    export_gguf(tmp_path, tmp_path / "model.gguf", "f32")
    import_gguf(tmp_path / "model.gguf", tmp_path / "again")
    first, second = load_model(tmp_path), load_model(tmp_path / "again")
    assert first.shape == second.shape
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    tokenizer = Tokenizer.load(tmp_path / "again")
    assert tokenizer.vocab == TOKENIZER.vocab and tokenizer.special_tokens == TOKENIZER.special_tokens
    assert tokenizer.merges == TOKENIZER.merges and tokenizer.pattern == GPT4


@pytest.mark.parametrize(
    ("kind", "width", "bits"), [("f32", 64, 32), ("f16", 64, 16), ("q8_0", 64, 8.5), ("q8_0", 48, 16)]
)
def test_matrices_take_the_bits_of_their_type(tmp_path, kind, width, bits):
    save_random(tmp_path, shape_of("llama", width=width))
    export_gguf(tmp_path, tmp_path / "model.gguf", kind)
    [query] = [
        tensor
        for tensor in GGUFReader(tmp_path / "model.gguf").tensors
        if tensor.name == "blk.1.attn_q.weight"
    ]
    assert 8 * query.n_bytes / query.n_elements == bits


def test_what_llama_cpp_does_not_compute_is_refused(tmp_path):
    unknown = train([TEXT], 300, r"\w+|\W+")
    speedrun, scaled, pattern = tmp_path / "speedrun", tmp_path / "scaled", tmp_path / "pattern"
    save_random(speedrun, shape_of("speedrun", kv_heads=4, tie_embeddings=False))
    save_random(scaled, shape_of("llama"))
    config = json.loads((scaled / "config.json").read_text())
    config["rope_scaling"] = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    }
    config["rope_scaling"]["original_max_position_embeddings"] = 32
    (scaled / "config.json").write_text(json.dumps(config))
    save_random(pattern, shape_of("qwen3", vocab_size=unknown.vocab_size), unknown)
    assert splitter(unknown.pattern) is None
    for folder, message in (
        (speedrun, "family speedrun"),
        (scaled, "scales its rotary"),
        (pattern, "does not support"),
    ):
        with pytest.raises(BadInput, match=message):
            export_gguf(folder, folder / "model.gguf")
        assert [path.suffix for path in folder.iterdir() if "gguf" in path.name] == []


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_is_exported_as_transformers_reads_it(tmp_path, family, capsys):
    save_random(tmp_path / "model", shape_of(family))
    (tmp_path / "model" / "log.jsonl").write_text("{}")
    assert main(["export", str(tmp_path / "model"), "--to", "hf", "--out", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out" / "log.jsonl").exists()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    tokens = torch.tensor([TOKENIZER.encode("The journey of a page")])
    torch.testing.assert_close(
        load_model(tmp_path / "model")(tokens), theirs(tokens).logits, atol=1e-4, rtol=0
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.encode("The journey of a page") == tokens[0].tolist()
    assert main(["export", str(tmp_path / "model"), "--to", "hf", "--out", str(tmp_path / "out")]) == 2
    assert "already exists" in capsys.readouterr().err


PRES = [None, "default", "llama-bpe", "smaug-bpe", "gpt-2", "qwen2", "smollm", "starcoder", "stablelm2"]


@pytest.mark.parametrize("pre", PRES)
def test_a_gguf_file_is_cut_as_llama_cpp_cuts_it_whatever_it_calls_its_tokenizer(tmp_path, pre):
    save_random(tmp_path, shape_of("qwen3"))
    export_gguf(tmp_path, tmp_path / "model.gguf", "f32")
    path = with_pre(tmp_path / "model.gguf", tmp_path / "other.gguf", pre)
    import_gguf(path, tmp_path / "again")
    tokenizer, peer = Tokenizer.load(tmp_path / "again"), LlamaCpp(path)
    for text in strings():
        ids = peer.ask("tokenize", content=text, parse_special=False)["tokens"]
        assert tokenizer.encode(text) == ids, text
    begun = peer.ask("tokenize", content="Hi", add_special=True)["tokens"]
    assert [*tokenizer.begin, *tokenizer.encode("Hi")] == begun


def with_pre(source: Path, target: Path, pre: str | None) -> Path:
    """A copy of a GGUF file whose tokenizer has another name, or none, and does not say whether BOS is added."""
    reader, writer = GGUFReader(source), gguf.GGUFWriter(target, "qwen3")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "tokenizer.ggml.pre"):
            continue
        if name == "tokenizer.ggml.add_bos_token":
            continue
        kind = field.types[0]
        writer.add_key_value(name, field.contents(), kind, field.types[1] if len(field.types) > 1 else None)
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_our_own_export_is_read_back_whole_and_in_parts(tmp_path, family):
    save_random(tmp_path, shape_of(family))
    export_gguf(tmp_path, tmp_path / "model.gguf", "f32")
    import_gguf(tmp_path / "model.gguf", tmp_path / "whole")
    reader = GGUFReader(tmp_path / "model.gguf")
    half = len(reader.tensors) // 2
    for number, tensors in enumerate((reader.tensors[:half], reader.tensors[half:]), 1):
        writer = gguf.GGUFWriter(tmp_path / f"part-0000{number}-of-00002.gguf", family)
        for name, field in reader.fields.items() if number == 1 else ():
            if not name.startswith("GGUF.") and name != "general.architecture":
                kinds = field.types
                writer.add_key_value(name, field.contents(), kinds[0], kinds[1] if len(kinds) > 1 else None)
        writer.add_uint16("split.count", 2)
        for tensor in tensors:
            writer.add_tensor(tensor.name, tensor.data)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    import_gguf(tmp_path / "part-00002-of-00002.gguf", tmp_path / "parts")
    tokens = torch.tensor([TOKENIZER.encode("The journey of a page")])
    for folder in ("whole", "parts"):
        assert torch.equal(load_model(tmp_path / folder)(tokens), load_model(tmp_path)(tokens))
        assert Tokenizer.load(tmp_path / folder).encode(TEXT[:500]) == TOKENIZER.encode(TEXT[:500])
    (tmp_path / "part-00001-of-00002.gguf").unlink()
    with pytest.raises(MissingInput, match="all 2 parts"):
        import_gguf(tmp_path / "part-00002-of-00002.gguf", tmp_path / "out")
