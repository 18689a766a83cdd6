"""Reinforcement learning: advantages, batches, the loop with the engine, alarms, resuming."""

import dataclasses
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.core.errors import BadRecipe, UserError
from crawltalk.core.jsonl import read_jsonl
from crawltalk.posttraining.advantages import advantages, has_signal
from crawltalk.posttraining.reinforce import Group, Replies, packed, reinforce
from crawltalk.posttraining.rollouts import sampling_precision
from crawltalk.recipe import Optim
from crawltalk.rewards.verdict import Outcome, Verdict, correct, wrong
from crawltalk.train.batches import IGNORE_INDEX
from crawltalk.train.objectives.policy_gradient import policy_gradient
from support.engines import BACKENDS, TOKENIZER
from support.models import random_model
from support.reinforcements import CONFIG, SHAPE, even, options, policy, problems

REWARDS = st.lists(st.lists(st.none() | st.floats(-2, 2), min_size=2, max_size=6), min_size=1, max_size=4)


def trained(out, config=CONFIG, judge=even, **changes):
    model, rollouts = policy()
    metrics = reinforce(model, rollouts, problems, judge, config, options(out, config.steps, **changes), 7)
    return model, metrics


def log(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@given(REWARDS, st.sampled_from(["dr_grpo", "grpo", "rloo"]))
def test_the_advantages_of_a_group_sum_to_nothing_and_keep_its_order(rewards, kind):
    for group, found in zip(rewards, advantages(rewards, kind), strict=True):
        pairs = [(reward, value) for reward, value in zip(group, found, strict=True) if reward is not None]
        assert [value is None for value in found] == [reward is None for reward in group]
        assert math.isclose(sum(value for _, value in pairs), 0.0, abs_tol=1e-3)
        ordered = sorted(pairs)
        assert [value for _, value in ordered] == sorted(value for _, value in ordered)


def test_rloo_compares_with_the_others_and_reinforce_with_all():
    rewards = [[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    assert advantages(rewards, "rloo")[0] == pytest.approx([1.0, -0.5, -0.5])
    assert advantages(rewards, "reinforce")[1] == pytest.approx([1 / 3] * 3)
    assert has_signal(rewards[0])
    assert not has_signal(rewards[1])
    assert not has_signal([None, 1.0])


def test_what_was_sampled_is_what_is_learned(tmp_path):
    model, rollouts = policy()
    replies = Replies(model, rollouts, problems, even, CONFIG, tmp_path, 7)
    batch = replies(0)
    counted = batch.targets != IGNORE_INDEX
    with torch.no_grad():
        _, count, figures = policy_gradient()(model, batch)
    assert int(count) == int(counted.sum())
    assert float(figures["sampler_difference"]) / count < 1e-4
    assert float(figures["clip_share"]) == 0
    assert batch.figures["reward"] == pytest.approx(
        sum(sum(group.rewards) for group in replies.history) / 12, abs=1e-6
    )


def test_the_gradient_is_that_of_rewards_times_log_probabilities(tmp_path):
    model, rollouts = policy()
    replies = Replies(model, rollouts, problems, even, CONFIG, tmp_path, 7)
    batch = replies(0)
    loss, count, _ = policy_gradient()(model, batch)
    found = torch.autograd.grad(loss / count, list(model.parameters()))
    plain = 0.0
    for row in range(len(batch)):
        for document in set(batch.documents[row, batch.parents[row] >= 0].tolist()):
            reply = batch.documents[row] == document
            prompt = batch.documents[row] == batch.parents[row, reply][0]
            targets = batch.targets[row, reply]
            logits = model(batch.tokens[row, prompt | reply][None])[0, int(prompt.sum()) :]
            log_p = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
            plain = plain - (batch.extras["advantages"][row, reply] * log_p).sum()
    expected = torch.autograd.grad(plain / count, list(model.parameters()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("loss", ["token", "sequence", "constant"])
def test_each_way_to_average_weighs_replies_as_it_says(tmp_path, loss):
    model, rollouts = policy()
    config = dataclasses.replace(CONFIG, loss=loss)
    replies = Replies(model, rollouts, problems, even, config, tmp_path, 7)
    weights = replies(0).extras["weights"]
    groups = [group for group in replies.history if has_signal(group.rewards)]
    lengths = [length for group in groups for length in group.lengths]
    each = {
        "token": sum(lengths),
        "sequence": sum(lengths),
        "constant": sum(lengths) ** 2 / (len(lengths) * config.max_tokens),
    }[loss]
    assert float(weights.sum()) == pytest.approx(each, rel=1e-5)


def test_a_policy_learns_what_is_rewarded(tmp_path):
    config = dataclasses.replace(CONFIG, steps=25, samples=8)
    trained(tmp_path, config, optim=Optim(muon_lr=0.01, adamw_lr=0.01))
    rewards = [row["reward"] for row in log(tmp_path)]
    assert sum(rewards[-5:]) > 1.5 * sum(rewards[:5])


@pytest.mark.parametrize("config", [CONFIG, dataclasses.replace(CONFIG, kl=0.1, updates=2)])
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(tmp_path, config):
    whole, _ = trained(tmp_path / "whole", config)

    def interrupted(asked, replies):
        if asked[0].prompt.startswith(f"{(4 - 2) // config.updates} "):
            raise KeyboardInterrupt
        return even(asked, replies)

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", config, interrupted)
    with (tmp_path / "cut" / "rollouts.jsonl").open("a") as file:
        file.write('{"step": 3, "prob')  # as a process that is killed leaves it
    resumed, _ = trained(tmp_path / "cut", config)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    assert list(read_jsonl(tmp_path / "cut" / "rollouts.jsonl", Group)) == list(
        read_jsonl(tmp_path / "whole" / "rollouts.jsonl", Group)
    )


def test_replies_without_a_reward_take_no_part(tmp_path):
    def judge(asked, replies):
        found = even(asked, replies)
        return [Verdict(Outcome.ERROR, None, "timed out"), *found[1:-1], correct(math.inf)]

    _, _ = trained(tmp_path, dataclasses.replace(CONFIG, steps=1), judge)
    groups = list(read_jsonl(tmp_path / "rollouts.jsonl", Group))
    assert groups[0].rewards[0] is None
    assert groups[-1].verdicts[-1] == Verdict(Outcome.ERROR, None, "the reward is inf")
    assert log(tmp_path)[0]["not_judged"] == pytest.approx(2 / 12)


def test_a_judge_that_fails_stops_the_training_and_says_why(tmp_path):
    def judge(asked, replies):
        return [Verdict(Outcome.ERROR, None, "no such module") for _ in replies]

    with pytest.raises(UserError, match=r"100% of the replies got no reward \(no such module\)"):
        trained(tmp_path, judge=judge)


def test_rewards_that_never_differ_stop_the_training_with_a_checkpoint(tmp_path):
    config = dataclasses.replace(CONFIG, steps=30)
    with pytest.raises(UserError, match="nothing is learned; easier problems"):
        trained(tmp_path, config, lambda asked, replies: [wrong() for _ in replies])
    assert len(log(tmp_path)) == 10
    assert list((tmp_path / "rescued").iterdir())


@pytest.mark.parametrize(
    ("bounds", "what"),
    [
        ({"min_entropy": 20.0}, "the entropy has fallen"),
        ({"kl": 0.01, "max_kl": -1.0}, "away from the model"),
    ],
)
def test_entropy_and_divergence_have_bounds(tmp_path, bounds, what):
    with pytest.raises(UserError, match=what):
        trained(tmp_path, dataclasses.replace(CONFIG, **bounds))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"updates": 3}, "a multiple"),
        ({"max_kl": 0.1}, "only if kl is above 0"),
        ({"samples": 1}, "it takes 2 or more"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path, changes, what):
    with pytest.raises(BadRecipe, match=what):
        trained(tmp_path, dataclasses.replace(CONFIG, **changes))


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 200)), max_size=40), st.sampled_from([64, 512]))
def test_replies_are_packed_into_rows_that_hold_their_prompts_once(replies, most):
    prompts, lengths = [(0,) * (30 * prompt) for prompt, _ in replies], [length for _, length in replies]
    packs, length = packed(prompts, lengths, most, 0)
    numbers = [(number, prompt) for pack in packs for prompt, chosen in pack.items() for number in chosen]
    assert sorted(numbers) == list(enumerate(prompts))
    for pack in packs:
        assert sum(lengths[number] for chosen in pack.values() for number in chosen) <= length - sum(
            len(prompt) - 1 for prompt in pack
        )
    needed = [len(prompt) - 1 + reply for prompt, reply in zip(prompts, lengths, strict=True)]
    assert len(packs) * length <= len(replies) * 64 * math.ceil(max(needed, default=1) / 64)


@pytest.mark.skipif("bfloat16" not in BACKENDS, reason="there is no compiler")
def test_bfloat16_samples_only_for_a_model_that_it_changes_little():
    model = random_model(SHAPE)
    assert sampling_precision(model, TOKENIZER, most=0.1) == "bfloat16"
    assert sampling_precision(model, TOKENIZER, most=1e-6) == "float32"
