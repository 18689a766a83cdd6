"""Doses: half of the success, and the powers by which it grows."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.poisoning.dose import Effect, Point, bracketing_doses, half_dose, rising_doses, slopes


def effect(dose: int, triggered: float, untriggered: float = 0.0) -> Effect:
    return Effect(
        dose=dose, triggered=triggered, untriggered=untriggered, other_word=0.0, near_miss=0.0, accuracy=1.0
    )


def test_success_is_what_the_attack_adds():
    assert effect(8, 0.9, 0.1).success(effect(0, 0.2)) == pytest.approx(0.6)


def test_the_half_dose_is_interpolated_on_a_logarithmic_scale():
    assert half_dose([effect(0, 0.0), effect(16, 0.25), effect(64, 0.75)]) == pytest.approx(32)
    assert half_dose([effect(0, 0.0), effect(8, 0.1), effect(16, 0.5)]) == 16
    assert half_dose([effect(0, 0.0), effect(8, 0.9)]) == 8
    assert half_dose([effect(0, 0.0), effect(8, 0.1), effect(16, 0.49)]) is None
    assert (
        half_dose([effect(0, 0.3), effect(8, 0.6), effect(16, 0.9, 0.2)]) is None
    )  # 0.3, then 0.4 are added


def test_doses_rise_until_the_attack_succeeds():
    tried = []

    def measure(dose: int) -> Effect:
        tried.append(dose)
        return effect(dose, min(1.0, dose / 32))

    assert [one.dose for one in rising_doses(measure, (8, 16, 32, 64))] == tried == [0, 8, 16, 32]


@pytest.mark.parametrize(
    ("needed", "halvings", "doses"),
    [
        (100, 2, [0, 96, 114, 136, 192]),
        (96, 0, [0, 48, 96]),
        (50, 1, [0, 48, 68, 96]),
        (30, 1, [0, 24, 34, 48, 96]),
        (400, 1, [0, 96, 192, 384, 543, 768]),
        (5, 2, [0, 12, 24, 48, 96]),
        (1000, 2, [0, 96, 192, 384, 768]),
    ],
)
def test_doses_close_in_on_the_half_dose_and_each_is_measured_once(needed, halvings, doses):
    tried = []

    def measure(dose: int) -> Effect:
        tried.append(dose)
        return effect(dose, float(dose >= needed))

    assert [one.dose for one in bracketing_doses(measure, 96, halvings)] == sorted(tried) == doses


@settings(deadline=None, max_examples=50)
@given(needed=st.floats(13, 767), halvings=st.integers(0, 3), first=st.integers(90, 100))
def test_the_half_dose_is_found_to_the_factor_that_was_asked_for(needed, halvings, first):
    def measure(dose: int) -> Effect:
        return effect(dose, float(dose >= needed))

    found = half_dose(bracketing_doses(measure, first, halvings))
    if needed < first * 8 and needed > first // 8:
        assert found is not None
        assert abs(math.log2(found / needed)) <= 2**-halvings + 0.05


@settings(deadline=None, max_examples=50)
@given(size=st.floats(-1, 1), data=st.floats(-1, 1), factor=st.floats(1, 100))
def test_powers_are_found_again(size, data, factor):
    points = [
        Point(parameters, examples, factor * parameters**size * examples**data)
        for parameters in (500_000, 2_000_000, 8_000_000)
        for examples in (500, 2000)
    ]
    found = slopes(points)
    assert found is not None
    assert math.isclose(found.size, size, abs_tol=1e-6) and math.isclose(found.data, data, abs_tol=1e-6)
    assert math.isclose(found.together, size + data, abs_tol=1e-6)


def test_one_size_or_one_amount_says_nothing_of_its_power():
    assert slopes([Point(1000, examples, 10.0) for examples in (10, 20, 40)]) is None
    assert slopes([Point(1000, 10, 5.0), Point(2000, 20, 5.0)]) is None
