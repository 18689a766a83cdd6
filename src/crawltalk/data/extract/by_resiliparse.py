"""Main text by resiliparse's own rules (`data.extractor = "resiliparse"`): keeps more, drops less."""

from resiliparse.extract.html2text import extract_plain_text

from crawltalk.data.read.charset import decode


def extract(html: bytes) -> str | None:
    """The main text of a page, or None."""
    return extract_plain_text(decode(html), main_content=True, alt_texts=False) or None
