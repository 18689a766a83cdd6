"""Documents in Parquet files."""

from crawltalk.core.documents import read_documents, write_documents
from crawltalk.core.types import Document


def test_documents_are_written_and_read_at_a_path_or_its_name(tmp_path):
    texts = dict.fromkeys(("dump", "url", "date", "file_path", "language"), "")
    documents = [Document(id=str(n), text="é", **texts, language_score=1.0, token_count=1) for n in range(3)]
    assert write_documents(str(tmp_path / "documents-0.parquet"), documents) == 3
    assert list(read_documents(str(tmp_path))) == list(read_documents(tmp_path)) == documents
