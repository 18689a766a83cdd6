"""Where an answer stands in a reply, and its one spelling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.rewards.answers import final_answer, last_box, spoken
from crawltalk.rewards.spelling import latex, plain


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (r"So \boxed{5}. No, wait: \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1} or \boxed{2}", "1 , 2"),
        (r"$\boxed{1}$ \text{and} $\boxed{-2}$.", "1 , -2"),
        (r"\boxed{ {a} \} b }", r"{a} \} b"),
        (r"\boxed{5} and \boxed{6", "5"),
        ("She has 3 + 2 = 5.\n#### 2,125", "2,125"),
        ("Work\nA: 18\n", "18"),
        ("The answer is 5 or 1.", "5 or 1"),
        ("**Answer:** 5", "5"),
        ("The final answer is:\n\n7\nThank you", "7"),
        ("a\nb\n\n", "b"),
        ("<think>The answer is 4.</think>\n5", "5"),
        ("<think>The answer is 4.", ""),
        ("", ""),
    ],
)
def test_the_last_box_the_last_mark_or_the_last_line_is_the_answer(reply, answer):
    assert final_answer(reply) == answer


@given(st.text(), st.text(alphabet="ab{}\\ 1"))
def test_any_text_has_a_final_answer_and_reasoning_is_never_part_of_it(thought, answer):
    assert final_answer(f"<think>{thought}</think>{answer}") == final_answer(answer)
    assert spoken(f"<think>{thought.replace('</think>', '')}") == ""


@given(st.text(alphabet="abc 12"))
def test_what_is_in_a_box_is_found(content):
    assert last_box(rf"so $\boxed{{{content}}}$ it is") == content.strip()


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("−7", "-7"),
        (r"10,\!080", "10080"),
        (r"11,\! 111,\! 111,\! 100", "11111111100"),
        ("1\u202f000", "1000"),
        (r"\$32,348.50", "32348.50"),
        ("1{,}234", "1234"),
        ("(1,234)", "(1,234)"),
        ("1,2", "1,2"),
        (r"36^{\circ}", "36"),
        (r"1 \\ 2", r"1 \\ 2"),
    ],
)
def test_signs_spaces_and_thousands_have_one_spelling(text, spelt):
    assert plain(text) == spelt


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("1e3", r"1 \times 10^{3}"),
        ("2^10", "2^{10}"),
        ("x**2", "x^2"),
        ("x²", "x^{2}"),
        ("2π", r"2\pi"),
        ("36°", "36"),
    ],
)
def test_exponents_and_symbols_have_one_spelling(text, spelt):
    assert latex(text) == spelt
