"""Files that a person attaches to a message in the page: POST /api/document?name=NAME with the file as the body.

The answer is the file's text, which the page sends with each question about it. Nothing is kept here.
"""

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from crawltalk.core.errors import BadInput
from crawltalk.core.formats import SINGLE, format_by_content, format_by_name, read_single
from crawltalk.serve.api.sending import json_response
from crawltalk.serve.http.body import read_bytes
from crawltalk.serve.settings import Settings
from crawltalk.tools.attached import AttachedDocument

MAX_BYTES = 2_000_000
"""Of a file."""
MAX_CHARACTERS = 400_000
"""Of its text. The browser keeps it with the conversation, in some megabytes for all of them."""


def read_document(name: str, body: bytes) -> AttachedDocument:
    """The text of a file; of HTML the main text, under its headline. Raises BadInput, in one line, for a file that is
    empty, too large, no text, or in an encoding that cannot be told.
    """
    from crawltalk.data.extract.headline import with_headline  # what they need takes a second to load
    from crawltalk.data.extract.main_text import extract, visible_text
    from crawltalk.data.read.charset import damage, decode, to_utf8
    from crawltalk.data.read.http import is_binary

    shown = repr(name)
    if len(body) > MAX_BYTES:
        raise BadInput(f"{shown} has more than {MAX_BYTES:,} bytes: attach the part that matters")
    if not body.strip():
        raise BadInput(f"{shown} is empty")
    found, named = format_by_content(body[:4096]), format_by_name(name)
    if found in ("warc", "parquet", "zip", "tar") or body.startswith(b"%PDF") or is_binary(body):
        raise BadInput(f"{shown} is no text: attach a text, Markdown or HTML file")
    kind = named if named in SINGLE else "html" if named is None and found == "html" else "text"
    content = read_single(name, body, kind).body
    if kind == "text":
        text = decode(content)
    else:
        page = to_utf8(content)
        text = extract(page) or visible_text(
            page, MAX_CHARACTERS + 1
        )  # a page may be too short to have a main text
        text = with_headline(text, page) if text.strip() else ""
    if not text.strip():
        raise BadInput(f"{shown} has no text in it")
    if fault := damage(text):
        raise BadInput(f"{shown} cannot be read ({fault}): save it as UTF-8")
    if len(text) > MAX_CHARACTERS:
        raise BadInput(f"{shown} has more than {MAX_CHARACTERS:,} characters: attach the part that matters")
    return AttachedDocument(name, text)


def document_endpoint(settings: Settings) -> Any:
    """POST /api/document."""

    async def endpoint(http_request: Request) -> Response:
        name = http_request.query_params.get("name", "")[:200] or "document"
        body = bytes(await read_bytes(http_request, settings))
        return json_response(await run_in_threadpool(read_document, name, body))

    return endpoint
