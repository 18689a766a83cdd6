"""A small policy that is rewarded for even bytes."""

import dataclasses
import os
import signal
from functools import partial

from crawltalk.core.types import Problem
from crawltalk.engine import Engine
from crawltalk.posttraining.rollouts import EngineRollouts
from crawltalk.recipe import Machine, Optim, Reinforce
from crawltalk.rewards.verdict import correct, wrong
from crawltalk.run.stage import Progress
from crawltalk.train.loop import TrainingOptions
from support.engines import TOKENIZER
from support.models import QWEN, random_model

SHAPE = dataclasses.replace(QWEN, vocab_size=TOKENIZER.vocab_size, context=64)
CONFIG = Reinforce(steps=4, groups=3, samples=4, max_tokens=6)


def prompt(problem):
    return TOKENIZER.encode(problem.prompt)


def policy():
    return random_model(SHAPE), EngineRollouts(Engine(random_model(SHAPE), TOKENIZER), prompt, 6)


def problems(draw, history):
    return [Problem(prompt=f"{draw} {number} is", answer="", task="odd") for number in range(3)]


def even(asked, replies):
    """The share of even bytes in a reply."""
    shares = [
        sum(byte % 2 == 0 for byte in reply.encode()) / max(1, len(reply.encode())) for reply in replies
    ]
    return [correct(share) if share > 0.5 else wrong(share) for share in shares]


def options(out, steps=4, **changes):
    defaults = {
        "steps": steps,
        "optim": Optim(muon_lr=0.002, adamw_lr=0.002),
        "machine": Machine(workers=1, device="cpu", dtype="float32"),
        "progress": Progress(),
        "out": out,
        "save_every": 2,
    }
    return TrainingOptions(**(defaults | changes))


class Mortal(EngineRollouts):
    """Kills its process in the second step, unless another one has done so before."""

    def __init__(self, mark, *settings):
        super().__init__(*settings)
        self.mark = mark

    def sample(self, asked, *settings):
        if asked[0].prompt.startswith("1 ") and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().sample(asked, *settings)

    @classmethod
    def maker(cls, mark):
        return partial(_mortal, mark)


def _mortal(mark):
    model = random_model(SHAPE)
    return Mortal(mark, Engine(model, TOKENIZER), prompt, 6), model
