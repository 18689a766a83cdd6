"""WARC records (ISO 28500), as they are written."""

import zlib


def gzip_record(head: dict[str, str], block: bytes) -> bytes:
    """A WARC/1.1 record as a gzip member of its own (ISO 28500, annex D); no time stamp, so the bytes are
    reproducible.
    """
    lines = "".join(f"{key}: {value}\r\n" for key, value in head.items())
    data = f"WARC/1.1\r\n{lines}\r\n".encode() + block + b"\r\n\r\n"
    packer = zlib.compressobj(4, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()
