"""Defences: wrappers around a target, and other models in its place."""

import random
import string
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from crawltalk.chat.messages import Message
from crawltalk.redteam.frame import Defense, Prompt, Reply, Target, WhiteBox
from crawltalk.redteam.policy import FORBIDDEN, REFUSAL
from crawltalk.redteam.targets import ROOM, EngineTarget, prompt_ids
from crawltalk.tasks.scoring import is_refusal

WINDOW = 8
"""Tokens whose surprise is averaged."""
COPIES, SWAPPED = 5, 0.1
"""Of SmoothLLM: copies of a request, and the share of characters that differ in each (Robey et al. 2023)."""


class Filtered:
    """A target behind a check of each prompt; what does not pass is declined and never reaches it."""

    def __init__(self, target: Target, passes: Callable[[Prompt], bool], white_box: WhiteBox | None) -> None:
        self.target, self.passes, self.white_box = target, passes, white_box
        self.name = target.name

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """One reply to each."""
        let = [self.passes(prompt) for prompt in prompts]
        passed = [prompt for prompt, good in zip(prompts, let, strict=True) if good]
        replies = iter(self.target.answer(passed) if passed else [])
        return [next(replies) if good else Reply(text=REFUSAL) for good in let]


@torch.no_grad()
def surprise(box: WhiteBox, prompt: Prompt) -> float:
    """The highest mean surprise of WINDOW tokens in a row of the prompt, in nats (Jain et al. 2023, section 4.1)."""
    ids = torch.tensor([prompt_ids(box.engine, prompt, ROOM)])
    logits = box.model(ids[:, :-1])[0]
    return float(highest(F.cross_entropy(logits, ids[0, 1:], reduction="none")))


def highest(surprises: Tensor) -> Tensor:
    """The highest mean of WINDOW in a row, [.., T] to [..]."""
    return surprises.unfold(-1, min(WINDOW, surprises.shape[-1]), 1).mean(-1).amax(-1)


def perplexity_filter(harmless: Sequence[Prompt]) -> Defense:
    """Declines what surprises the target more than all of these harmless prompts do."""

    def apply(target: Target) -> Target:
        box = target.white_box
        if box is None:
            return target
        most = max(surprise(box, prompt) for prompt in harmless)
        return Filtered(target, lambda prompt: surprise(box, prompt) <= most, box._replace(ceiling=most))

    return Defense(name="perplexity filter", apply=apply)


class Smoothed:
    """SmoothLLM: a request is asked several times with other characters in some places, and the majority decides
    whether it is declined (Robey et al. 2023, algorithm 1).
    """

    def __init__(self, target: Target) -> None:
        self.target, self.name, box = target, target.name, target.white_box
        self.white_box = None if box is None else box._replace(swapped=SWAPPED)

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """One reply to each: the first of the majority."""
        copies = [self._copies(prompt) for prompt in prompts]
        replies = self.target.answer([copy for some in copies for copy in some])
        chosen = []
        for index in range(len(prompts)):
            some = replies[index * COPIES : (index + 1) * COPIES]
            declined = [is_refusal(reply.text) for reply in some]
            verdict = sum(declined) * 2 > COPIES
            reply = next(reply for reply, no in zip(some, declined, strict=True) if no == verdict)
            reply.seconds, reply.tokens = sum(one.seconds for one in some), sum(one.tokens for one in some)
            chosen.append(reply)
        return chosen

    def _copies(self, prompt: Prompt) -> list[Prompt]:
        rng = random.Random(prompt.request)
        return [prompt.asking(swapped(prompt.request, rng)) for _ in range(COPIES)]


def swapped(text: str, rng: random.Random, share: float = SWAPPED) -> str:
    """A text with other characters in some places."""
    characters = list(text)
    for index in rng.sample(range(len(text)), round(share * len(text))):
        characters[index] = rng.choice(string.ascii_letters + string.digits + string.punctuation)
    return "".join(characters)


SMOOTH = Defense(name="SmoothLLM", apply=Smoothed)


def guard_model(guard: WhiteBox) -> Defense:
    """A model that reads each request first and says whether it may pass (Inan et al. 2023, Llama Guard)."""
    reader = EngineTarget("guard", guard.engine, max_tokens=16)

    def passes(prompt: Prompt) -> bool:
        [reply] = reader.answer([Prompt([Message("user", prompt.request)])])
        return FORBIDDEN not in reply.text

    def apply(target: Target) -> Target:
        box = target.white_box
        return Filtered(target, passes, box._replace(guard=guard) if box is not None else None)

    return Defense(name="guard model", apply=apply)


def trained_in(name: str, other: Target) -> Defense:
    """Another model in the target's place."""
    return Defense(name=name, apply=lambda target: other)
