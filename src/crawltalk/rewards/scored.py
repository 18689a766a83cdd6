"""A reward model as a judge: the score of a conversation is the reward of its last reply."""

from collections.abc import Callable, Sequence
from pathlib import Path

from crawltalk.chat.messages import Message
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.types import Problem
from crawltalk.model.hf import load_reward_model
from crawltalk.model.reward import RewardModel
from crawltalk.rewards.verdict import Outcome, Verdict, correct, wrong

Asked = Callable[[Problem], Sequence[Message]]


def as_user_turn(problem: Problem) -> list[Message]:
    """A problem as it is usually asked."""
    return [Message("user", problem.prompt)]


class RewardJudge:
    """A `Judge`. `messages`: the conversation that a problem stands for. Scores have no zero of their own, so a
    `threshold` says from where on a reply counts as right.
    """

    def __init__(
        self, model: RewardModel, chat: ChatRenderer, messages: Asked = as_user_turn, threshold: float = 0.0
    ) -> None:
        self.model, self.chat, self.messages, self.threshold = model, chat, messages, threshold

    @classmethod
    def load(
        cls, folder: str | Path, messages: Asked = as_user_turn, threshold: float = 0.0
    ) -> "RewardJudge":
        """From the folder that the stage `reward` wrote, or another classifier with one label. Raises as
        `load_reward_model` does.
        """
        return cls(load_reward_model(folder), ChatRenderer.load(folder), messages, threshold)

    def __call__(self, problems: Sequence[Problem], replies: Sequence[str]) -> list[Verdict]:
        """The score of each reply, all in a few batches. A reply that makes the conversation longer than the context
        is undetermined; a score that is no number is an error.
        """
        texts = [
            self.chat.encode_chat([*self.messages(problem), Message("assistant", reply)])
            for problem, reply in zip(problems, replies, strict=True)
        ]
        context = self.model.shape.context
        fitting = [number for number, ids in enumerate(texts) if len(ids) <= context]
        scores = self.model.scores_of([texts[number] for number in fitting])
        verdicts = [Verdict(Outcome.UNDETERMINED, None, f"longer than {context} tokens")] * len(texts)
        for number, score in zip(fitting, scores.tolist(), strict=True):
            verdicts[number] = self._verdict(score)
        return verdicts

    def _verdict(self, score: float) -> Verdict:
        if score - score != 0:  # an infinity, or not a number
            return Verdict(Outcome.ERROR, None, f"the reward model's score is {score}")
        return correct(score) if score > self.threshold else wrong(score)
