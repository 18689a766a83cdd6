"""What labelers are told, and its version. A run brings its own as `instructions.md` in its folder."""

import hashlib
from pathlib import Path

import msgspec

from crawltalk.core.errors import BadInput

NAME = "instructions.md"
_DEFAULT = Path(__file__).parent / NAME
_MAX_BYTES = 200_000


class Instructions(msgspec.Struct, frozen=True):
    text: str
    """Markdown."""

    @property
    def version(self) -> str:
        """The first 12 hexadecimal digits of the text's SHA-256: every label says under which text it was made."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]


def read_instructions(folder: Path) -> Instructions:
    """The instructions of a run, or the built-in ones: helpful, truthful, harmless (Ouyang et al. 2022, section 3.4).
    Raises BadInput for a file that is no UTF-8 or longer than 200,000 bytes.
    """
    path = folder / NAME
    path = path if path.is_file() else _DEFAULT
    content = path.read_bytes()
    if len(content) > _MAX_BYTES:
        raise BadInput(
            f"{path} has more than {_MAX_BYTES:,} bytes; nobody reads so long instructions: shorten it"
        )
    try:
        return Instructions(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is no UTF-8 at byte {error.start}; save it as UTF-8") from None
