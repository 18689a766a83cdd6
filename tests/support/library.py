"""A little library: pages about four things, as the data stage writes them, and an index of their passages."""

from pathlib import Path

from crawltalk.core.documents import write_documents
from crawltalk.core.types import Document
from crawltalk.retrieval.passages import Passages, build_index

PAGES = {
    "tides": "Tides\nTides are the rise and fall of the sea level. The gravity of the Moon raises the level of the "
    "oceans twice a day. Spring tides occur when the Sun and the Moon pull in one line.\nA tide gauge is an instrument "
    "that measures the height of the sea over many years.",
    "glass": "Glass\nGlass is a solid that is usually transparent and brittle. Most windows consist of soda-lime glass "
    "with sand, soda and lime as its parts.\nObsidian is a volcanic glass which people used for blades.",
    "chess": "Chess\nChess is a board game for two players on sixty-four squares. The bishop moves along diagonals, "
    "and the rook along ranks and files.\nCastling is a move of the king and a rook at the same time.",
    "bread": "Bread\nBread is a food that people bake from dough of flour and water. Yeast makes the dough rise, since "
    "it produces carbon dioxide.\nSourdough is a dough that wild yeast and bacteria have fermented.",
}


def page(name: str, text: str) -> Document:
    return Document(
        text=text,
        id=f"<{name}>",
        dump="",
        url=f"https://library.example/{name}",
        date="",
        file_path="",
        language="en",
        language_score=1.0,
        token_count=1,
    )


def library() -> list[Document]:
    return [page(name, text) for name, text in PAGES.items()]


def write_library(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_documents(folder / "documents-00000.parquet", library())
    return folder


def library_index(folder: Path, seas: int = 0) -> Passages:
    """The index; with further pages about so many seas."""
    path = folder / "passages.sqlite"
    build_index(
        path, library() + [page(f"sea {number}", "Sea\nThe height of a sea.") for number in range(seas)], ""
    )
    return Passages(path)
