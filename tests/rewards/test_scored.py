"""A reward model as a judge of replies."""

import dataclasses

import torch

from crawltalk.chat.messages import Message
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.types import Problem
from crawltalk.model.hf import save_model
from crawltalk.model.reward import reward_model_of
from crawltalk.rewards.scored import RewardJudge
from crawltalk.rewards.verdict import Outcome
from support.engines import TOKENIZER
from support.models import QWEN, random_model

SHAPE = dataclasses.replace(QWEN, vocab_size=TOKENIZER.vocab_size)
PROBLEM = Problem(prompt="Hi", answer="", task="joke")


def judge_of(tmp_path, scale=1.0):
    model = reward_model_of(random_model(SHAPE))
    with torch.no_grad():
        model.score.weight.copy_(scale * torch.randn(1, SHAPE.width))
    save_model(model, tmp_path, eos=0, pad=TOKENIZER.eot)
    ChatRenderer(TOKENIZER).save(tmp_path)
    return RewardJudge.load(tmp_path)


def test_the_reward_is_the_score_of_the_whole_conversation(tmp_path):
    judge = judge_of(tmp_path)
    verdicts = judge([PROBLEM] * 3, ["Yes.", "", "No."])
    ids = [
        ChatRenderer.load(tmp_path).encode_chat([Message("user", "Hi"), Message("assistant", reply)])
        for reply in ("Yes.", "", "No.")
    ]
    assert [verdict.reward for verdict in verdicts] == judge.model.scores_of(ids).tolist()
    assert {verdict.outcome is Outcome.CORRECT for verdict in verdicts} <= {v.reward > 0 for v in verdicts}


def test_a_reply_that_is_too_long_is_undetermined_and_the_others_are_judged(tmp_path):
    verdicts = judge_of(tmp_path)([PROBLEM] * 2, ["x" * 100, "No."])
    assert verdicts[0].outcome is Outcome.UNDETERMINED and verdicts[0].reward is None
    assert verdicts[0].reason == "longer than 64 tokens"
    assert verdicts[1].reward is not None


def test_a_score_that_is_no_number_is_an_error_and_never_a_reward(tmp_path):
    [verdict] = judge_of(tmp_path, scale=float("inf"))([PROBLEM], ["Yes."])
    assert (verdict.outcome, verdict.reward) == (Outcome.ERROR, None)
