"""Bytes as printable characters, as vocabulary files spell tokens."""


def _byte_alphabet() -> list[str]:
    """A printable character for each byte, as in GPT-2's vocabulary files (Radford et al. 2019, encoder)."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    shifted = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(shifted)) for byte in range(256)]


ALPHABET = _byte_alphabet()
BYTE_OF = {character: byte for byte, character in enumerate(ALPHABET)}


def to_text(word: bytes) -> str:
    """Bytes in the printable alphabet."""
    return "".join(ALPHABET[byte] for byte in word)


def to_bytes(text: str) -> bytes:
    """The bytes of a text in the printable alphabet; KeyError for a character outside it."""
    return bytes(BYTE_OF[character] for character in text)
