"""How blocks are described, and which of them are the main text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.data.extract.blocks import features
from crawltalk.data.extract.main_text import BETA_SQUARED, chosen, extract
from crawltalk.data.extract.scan import Scan, scan

NO_NAMES = np.zeros(0, np.uint64), np.zeros(0, np.float32)
MENU = "<nav><ul><li><a href=/>Home</a><li><a href=/n>News</a><li><a href=/c>Contact</a></ul></nav>"


def described(text: str) -> np.ndarray:
    """The features of a block with this text: of its text only."""
    return features(scan(f"<p>{text}</p>".encode()), NO_NAMES)[0, :15]


@pytest.mark.parametrize(
    "text",
    [
        "He came, but she said (and that was all): “No, not today.”",
        "彼は来た。しかし、彼女は「今日は、だめです（残念ながら）。」",
        "他来了，但是她说（这就是全部）：“不，今天不行。”",
        "Он пришёл, но она сказала (и это было всё): “Нет, не сегодня.”",
        "وصل، لكنها قالت (وكان ذلك كل شيء): “لا، ليس اليوم؟”",
    ],
)
def test_a_sentence_is_described_alike_in_all_scripts(text: str):
    words, _, _, _, _, density, _, _, commas, ends, ends_sentence, bars = described(text)[1:13]
    assert words > 0.4 and 0.7 < density < 1.4
    assert commas > 0 and ends > 0 and ends_sentence == 1 and bars == 0


def test_letters_of_two_bytes_count_like_others():
    assert described("слово " * 12)[0] == described("words " * 12)[0]


def pages(sizes: list[int]) -> Scan:
    """A page with blocks of these sizes."""
    return scan("".join(f"<p>{'x' * size}</p>" for size in sizes).encode())


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 1000)), min_size=1, max_size=30))
def test_no_other_probability_parts_the_blocks_better(blocks: list[tuple[int, int]]):
    sizes = np.array([size for size, _ in blocks])
    probabilities = np.array([thousandths / 1000 for _, thousandths in blocks], np.float32)
    kept = chosen(pages(sizes.tolist()), probabilities)
    if probabilities.max() <= 0.5:
        assert not kept.any()
        return

    def measure(kept: np.ndarray) -> float:
        content = sizes * probabilities.astype(float)
        return content[kept].sum() / (BETA_SQUARED * content.sum() + sizes[kept].sum())

    assert kept.any()
    assert measure(kept) >= max(measure(probabilities >= least) for least in probabilities) - 1e-9


def test_a_page_of_short_lines_has_a_main_text():
    lines = [f"Line {number} of the list is short." for number in range(12)]
    text = extract(f"<h1>Twelve lines</h1><p>{'<p>'.join(lines)}".encode())
    assert text and all(line in text for line in lines)


def test_a_page_of_links_has_none():
    assert extract(f"<body>{MENU * 3}</body>".encode()) is None


def test_tables_and_lists_of_a_documentation_page_are_kept():
    rows = "".join(
        f"<tr><td><code>--level-{n}</code></td><td>integer</td><td>how much is logged by part {n}</td></tr>"
        for n in range(30)
    )
    entries = "".join(
        f"<li><a href=f{n}>function_{n}</a>: returns the value number {n}</li>" for n in range(30)
    )
    prose = (
        "<p>The program reads its options from left to right, and the last one counts. None is required.</p>"
    )
    text = extract(
        f"<body>{MENU}<main><h1>Options of the program</h1>{prose}<table>{rows}</table><h2>Functions</h2>{prose}"
        f"<ul>{entries}</ul>{prose}</main><footer>Copyright 2020</footer></body>".encode()
    )
    assert text and "--level-17\ninteger" in text and "function_17: returns" in text
    assert "Contact" not in text and "Copyright" not in text


def test_a_japanese_page_is_kept():
    paragraphs = [
        "むかしむかし、あるところに、おじいさんとおばあさんが住んでいました。",
        "おじいさんは山へしばかりに、おばあさんは川へせんたくに行きました。",
        "すると、川上から大きな桃が、どんぶらこ、どんぶらこと流れてきました。",
    ]
    cells = "<br>".join(paragraphs)
    text = extract(
        f"<body><table><tr><td>{MENU}</td><td><h1>桃太郎</h1>{cells}</td></tr></table></body>".encode()
    )
    assert text and all(paragraph in text for paragraph in paragraphs)
