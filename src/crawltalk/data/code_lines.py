"""Code in documents. What the quality filters know of lines is true of paragraphs: a line of three words is a label,
the same line twice is boilerplate. A block of code is one such line to them, whose breaks are marked, until all of
them have seen the document.
"""

MARK = "\x1f"
"""Stands for a line break in code, and in front of code. It is white space that ends no line; extracted text never
has one otherwise.
"""


def in_one_line(code: str) -> str:
    """The lines of code as one line."""
    return MARK + code.replace("\n", MARK)


def in_lines(text: str) -> str:
    """A text with the lines of its code."""
    if MARK not in text:
        return text
    return text.removeprefix(MARK).replace("\n" + MARK, "\n").replace(MARK, "\n")
