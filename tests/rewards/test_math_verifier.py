"""Mathematics by its value, and what math-verify alone would misjudge."""

import pytest

from crawltalk.rewards import Outcome, verify
from crawltalk.rewards.mathematics import mathematics
from support.verifiers import problem

pytest.importorskip("math_verify", reason="math-verify is not installed (the extra rewards)")


@pytest.mark.parametrize(
    ("gold", "reply"),
    [
        (r"3\sqrt{13}", r"\sqrt{117}"),
        ("1,-2", "-2 or 1"),
        ("1,-2", r"\boxed{1} and \boxed{-2}"),
        (r"1 \pm \sqrt{19}", r"1+\sqrt{19}, 1-\sqrt{19}"),
        ("1000", "1e3"),
        ("1024", "2^10"),
        ("-7", "−7"),
        (r"\frac{\pi}{2}", "π/2"),
        (r"11,\! 111,\! 111,\! 100", "11,111,111,100"),
        (r"\$32,\!348", "$32,348"),
        (r"90^\circ", "90"),
        ("52_8", "52"),
        ("4210_{5}", "4210_5"),
        ("x=5", "5"),
        ("5", "2 + 3 = 5"),
        ("6", r"\boxed{5}. I mean \boxed{6}"),
        (r"\text{Evelyn}", "Evelyn"),
        (r"8\sqrt{3} \text { square inches}", r"8\sqrt3"),
        (r"\frac{7}{5} + \frac{1}{5} i.", r"\frac{i+7}{5}"),
        ("y = 2x + 3", "y - 2x = 3"),
        ("(3,4]", r"\left( 3, 4 \right]"),
        (r"\begin{pmatrix} -2 \\ 1/3 \end{pmatrix}", r"\begin{pmatrix}-2\\\frac13\end{pmatrix}"),
        (".0000672", r"6.72 \times 10^{-5}"),
    ],
)
def test_an_answer_of_the_same_value_is_right(gold, reply):
    assert verify(mathematics, problem(gold), reply).outcome == Outcome.CORRECT


@pytest.mark.parametrize(
    ("gold", "reply"),
    [
        ("5", r"\boxed{5}. I mean \boxed{6}"),
        ("52_8", "52_7"),
        ("1", "5 = 1"),
        ("5", "5 = 1"),
        (r"5.4 \text{ cents}", r"5.4 \text{ cents} or \dfrac{33}{100}"),
        ("5", r"5 \mbox{ or } 1"),
        ("4.5", r"What is $\frac{9}{2}$ expressed as a decimal?"),
        (".0000672", ".0000671"),
        ("p - q", "q - p"),
        ("3, 5, 7", "3, 5"),
        ("2", r"\frac{2}{0}"),
        ("5", ""),
        ("5", "x" * 1000),
    ],
)
def test_another_answer_is_wrong(gold, reply):
    assert verify(mathematics, problem(gold), reply).outcome == Outcome.WRONG


def test_a_gold_that_cannot_be_read_is_undetermined_unless_the_reply_repeats_it():
    asked = problem(r"\frac{1}{")
    assert verify(mathematics, asked, "5").outcome == Outcome.UNDETERMINED
    assert verify(mathematics, asked, r"\frac{1}{").outcome == Outcome.CORRECT


def test_it_works_in_threads():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as threads:
        assert (
            threads.submit(verify, mathematics, problem(r"\sqrt{4}"), "2").result().outcome == Outcome.CORRECT
        )
