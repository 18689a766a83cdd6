from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crawltalk.core.errors import BadInput
from crawltalk.verbs.show import show


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
