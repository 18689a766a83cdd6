"""Replies of the policy to problems, sampled by the engine with the log-probability of each token."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import msgspec
import torch

from crawltalk.core.types import Problem
from crawltalk.engine import BUNDLE, Engine, Sampling
from crawltalk.engine.backends import MAX_CACHE_BYTES, MAX_NUM_SEQS, Backend
from crawltalk.engine.backends.cpu import Precision
from crawltalk.engine.engine import make_backend
from crawltalk.engine.sequence import Token
from crawltalk.model.cache import BLOCK_SIZE, blocks_for
from crawltalk.model.transformer import Transformer
from crawltalk.tokenizer import Tokenizer

MAX_DIFFERENCE = 0.01
"""Mean |difference of log-probabilities|, in nats, up to which a coarser precision may sample."""
PROMPT = 256
"""Tokens of a prompt that an engine has room for beside a reply; with longer ones it samples fewer replies at once."""
GPU_SHARE = 4
"""One part in so many of a GPU's free memory may hold keys and values."""
_TEXTS, _TOKENS = 8, 64
"""What it is measured on."""


def sampling_precision(model: Transformer, tokenizer: Tokenizer, most: float = MAX_DIFFERENCE) -> Precision:
    """bfloat16, if that changes the log-probabilities of text that the model writes by `most` nats at most in the mean;
    else float32. int8 is never faster where many replies are sampled at once.
    """
    coarse, exact = (
        Engine(model, tokenizer, rollout_backend(model, precision, _TEXTS, _TOKENS))
        for precision in ("bfloat16", "float32")
    )
    sampling = Sampling(max_tokens=min(_TOKENS, coarse.context) - 1, logprobs=0)
    request = coarse.request([tokenizer.eot], sampling, frozenset(), samples=_TEXTS)
    drawn: list[list[Token]] = [[] for _ in range(_TEXTS)]
    for output in coarse.run([request], BUNDLE):
        drawn[output.index] += output.tokens
    found = exact.logprobs([(request.prompt, [token.id for token in text]) for text in drawn])
    differences = [
        abs((token.logprob or 0.0) - log_prob)
        for text, log_probs in zip(drawn, found, strict=True)
        for token, log_prob in zip(text, log_probs, strict=True)
    ]
    return "bfloat16" if sum(differences) <= most * len(differences) else "float32"


def rollout_backend(model: Transformer, precision: Precision, replies: int, length: int) -> Backend:
    """A backend to sample with; its cache holds so many replies of this length, prompts included, or what a backend
    takes at most.
    """
    most, device = MAX_CACHE_BYTES, model.embedding.weight.device
    if device.type != "cpu":  # there a backend computes in the model's own precision
        model = copy.deepcopy(model).to(torch.float32 if precision == "float32" else torch.bfloat16)
        most = max(most, torch.cuda.mem_get_info(device)[0] // GPU_SHARE)
    shape, number_bytes = model.shape, 4 if precision == "float32" else 2
    position_bytes = 2 * shape.layers * shape.kv_heads * shape.head_dim * number_bytes
    blocks = min(MAX_NUM_SEQS, replies) * blocks_for(min(shape.context, length))
    return make_backend(model, precision, min(most, blocks * BLOCK_SIZE * position_bytes))


class Rollout(msgspec.Struct, frozen=True):
    """One reply, as token ids: what was sampled is what is learned, and no text is encoded again."""

    prompt: list[int]
    reply: list[int]
    """With the token that ended it, if one did."""
    log_probs: list[float]
    """Of each token of the reply, when it was drawn."""
    learned: list[bool]
    """Which tokens of the reply the policy wrote; a tool's result is none of its own."""
    text: str
    """What the policy wrote, without the token that ended it: what a verifier reads."""
    finished: bool
    """Whether it ended by itself, not at the limit of tokens."""
    calls: int = 0
    """Calls of tools in it that were made."""


class Rollouts(ABC):
    """Where replies come from. They are drawn at temperature 1 from the whole distribution: only then is the
    log-probability of a token that of the policy that learns.
    """

    max_tokens: int
    """That the policy writes in a reply."""

    @abstractmethod
    def update_weights(self, model: Transformer) -> None:
        """The next replies are those of this model."""

    @abstractmethod
    def fits(self, problem: Problem) -> bool:
        """Whether the model can read the problem and has room for a reply."""

    @abstractmethod
    def sample(
        self, problems: Sequence[Problem], numbers: Sequence[int], samples: int, sampling: Sampling
    ) -> list[list[Rollout]]:
        """So many replies to each problem. A reply depends on the seed, on the number of its problem in the step, and
        on its own number in its group; never on the other problems, nor on who else samples. Raises ContextOverflow for
        a problem that is longer than the model's context.
        """

    def __call__(
        self, problems: Sequence[Problem], numbers: Sequence[int], samples: int, seed: int
    ) -> list[list[Rollout]]:
        """Replies to learn from; see `sample`, which takes other settings, as an evaluation needs them."""
        sampling = Sampling(temperature=1.0, max_tokens=self.max_tokens, seed=seed, logprobs=0)
        return self.sample(problems, numbers, samples, sampling)

    def close(self) -> None:  # noqa: B027 - most keep nothing running
        """End what it keeps running."""


class EngineRollouts(Rollouts):
    """Replies by an engine of this process."""

    def __init__(
        self,
        engine: Engine,
        prompt: Callable[[Problem], list[int]],
        max_tokens: int,
        stop_ids: frozenset[int] | None = None,
    ) -> None:
        """`prompt`: the token ids that ask a problem; `stop_ids` None: the ends of a text and of a turn."""
        self.engine, self.prompt, self.stop_ids = engine, prompt, stop_ids
        self.max_tokens = max_tokens

    def update_weights(self, model: Transformer) -> None:
        """Copy the weights of the model into the engine."""
        self.engine.update_weights(model)

    def fits(self, problem: Problem) -> bool:
        """Whether there is room for the longest reply, or for half of the context."""
        room = min(self.max_tokens, self.engine.context // 2)
        return len(self.prompt(problem)) + room <= self.engine.context

    def sample(
        self, problems: Sequence[Problem], numbers: Sequence[int], samples: int, sampling: Sampling
    ) -> list[list[Rollout]]:
        """See `Rollouts`."""
        requests = [
            self.engine.request(
                self.prompt(problem), sampling, self.stop_ids, row=number * samples, samples=samples
            )
            for number, problem in zip(numbers, problems, strict=True)
        ]
        keys = [(request.id, index) for request in requests for index in range(samples)]
        ids = {key: list[int]() for key in keys}
        log_probs = {key: list[float]() for key in keys}
        texts, finished = dict.fromkeys(keys, ""), dict.fromkeys(keys, False)
        for output in self.engine.run(requests, BUNDLE):
            key = (output.request.id, output.index)
            tokens = output.tokens if output.stop_token is None else (*output.tokens, output.stop_token)
            ids[key] += [token.id for token in tokens]
            log_probs[key] += [token.logprob or 0.0 for token in tokens]
            texts[key] += output.text
            finished[key] |= output.finish_reason == "stop"
        return [
            [
                Rollout(
                    prompt=request.prompt,
                    reply=ids[request.id, index],
                    log_probs=log_probs[request.id, index],
                    learned=[True] * len(ids[request.id, index]),
                    text=texts[request.id, index],
                    finished=finished[request.id, index],
                )
                for index in range(samples)
            ]
            for request in requests
        ]
