import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crawltalk.chat.render import ChatRenderer
from crawltalk.cli import main
from crawltalk.core.errors import BadInput
from crawltalk.model.hf import save_model
from crawltalk.verbs.show import show
from support.engines import MODEL, TOKENIZER


def parquet(path: Path) -> bytes:
    pq.write_table(pa.table({"text": [f"line {number}" * 20 for number in range(100)]}), path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.parquet", b"PAR1"),
        ("a.json", b'{"a": '),
        ("a.jsonl", b'{"a": 1}\n{"a": \n'),
        ("a.jsonl", b"\xff\xfe\n"),
        ("b.jsonl", b"[1]\n"),
        ("a.safetensors", b"\xff" * 100),
        ("a.warc.gz", b"\x1f\x8b\x08" + bytes(range(200))),
    ],
)
def test_a_damaged_file_is_said_to_be_so_in_one_line(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=name) as caught:
        show(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_damaged_chunk_of_parquet_is_said_to_be_so(tmp_path: Path):
    path = tmp_path / "a.parquet"
    whole = bytearray(parquet(path))
    whole[20:80] = bytes(60)
    path.write_bytes(whole)
    with pytest.raises(BadInput, match="damaged"):
        show(path)


def test_rows_with_odd_line_separators_and_binary_files_are_shown(tmp_path: Path, capsys):
    (tmp_path / "a.jsonl").write_text('{"text": "a\u2028b\x85c"}\n{"text": "d"}\n', encoding="utf-8")
    show(tmp_path / "a.jsonl")
    (tmp_path / "a.npy").write_bytes(bytes(100))
    show(tmp_path / "a.npy")
    out = " ".join(capsys.readouterr().out.split())
    assert "2 rows" in out and "no text" in out


@pytest.fixture
def assistant(tmp_path) -> str:
    save_model(MODEL, tmp_path / "model", eos=TOKENIZER.eot)
    ChatRenderer(TOKENIZER).save(tmp_path / "model")
    return str(tmp_path / "model")


def test_a_mask_shows_what_is_learned_and_why_rows_are_refused(tmp_path, assistant, capsys, monkeypatch):
    rows = [
        {"prompt": "the <|im_end|>", "completion": "no"},
        {"prompt": "the", "completion": ""},
        {"prompt": "the " * 50, "completion": "no"},
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["show", "mask", str(path), "--model", assistant]) == 0
    shown = capsys.readouterr().out
    assert "<|im_start|>assistant<|im_sep|>⟦no<|im_end|>⟧" in shown
    assert shown.count("⟦") == 1
    assert "row 2: refused: message 2: the assistant says nothing" in shown
    assert "and the context has 48" in shown
    assert "conversations: 1, in 3 rows" in shown and "2 refused" in shown
    assert main(["show", "mask", str(path), "--model", assistant, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [sorted(line) for line in lines] == [
        ["learned", "row", "tokens"],
        ["reason", "row"],
        ["reason", "row"],
    ]
    learned = [token["text"] for token in lines[0]["tokens"] if token["learned"]]
    assert "".join(learned) == "no<|im_end|>"
    assert lines[0]["learned"] == len(learned)


def test_a_mask_of_what_is_no_file_is_one_line(tmp_path, assistant, capsys):
    assert main(["show", "mask", str(tmp_path / "absent.jsonl"), "--model", assistant]) == 2
    assert "does not exist; give a file of conversations" in " ".join(capsys.readouterr().err.split())
    assert main(["show", "masks", "a.jsonl"]) == 2
    assert "show takes one path, or: crawltalk show mask" in " ".join(capsys.readouterr().err.split())
