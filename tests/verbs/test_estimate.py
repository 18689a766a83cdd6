"""How long a journey will take."""

import pytest

from crawltalk.recipe.layers import load_recipe
from crawltalk.verbs.estimate import Estimate, conversations, step_seconds


def test_the_conversations_of_small_are_counted_from_its_recipe():
    assert conversations(load_recipe("small")) == pytest.approx(5918, rel=0.05)  # as its fine-tuning reports


def test_steps_of_the_training_loop_are_timed_in_the_shape_of_the_recipe():
    recipe = load_recipe("nano")
    assert all(0 < seconds < 60 for seconds in step_seconds(recipe))


def test_an_estimate_is_one_line():
    text = Estimate(pretrain=300, sft=120, rest=60).describe()
    assert text == "small takes about 8 minutes here (pretraining 5.0, fine-tuning 2.0, all else 1.0)"
