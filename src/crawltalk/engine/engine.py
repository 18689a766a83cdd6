"""The engine: a model behind a scheduler, with the calls that everything else in crawltalk makes."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from crawltalk.chat.format import ChatFormat
from crawltalk.chat.messages import MessageLike
from crawltalk.chat.render import ChatRenderer
from crawltalk.chat.tool_calls import Tool
from crawltalk.core.errors import BadInput
from crawltalk.engine.backend import Backend, Reference
from crawltalk.engine.constraints import Constraint, Vocabulary
from crawltalk.engine.native import Native, Precision, Unavailable
from crawltalk.engine.requests import Event, Request
from crawltalk.engine.sampling import Sampling
from crawltalk.engine.scheduler import Scheduler
from crawltalk.model.hf import load_model
from crawltalk.model.transformer import Transformer
from crawltalk.tokenizer import Tokenizer


def make_backend(
    model: Transformer, precision: Precision = "float32", cache_bytes: int | None = None
) -> Backend:
    """Native code on a CPU; torch, in the model's own precision, on a GPU and where there is none. Raises
    BadInput for int8 then.
    """
    try:
        if model.embedding.weight.device.type != "cpu":
            raise Unavailable("native code is for CPUs")
        return Native(model, precision, cache_bytes=cache_bytes)
    except Unavailable as reason:
        if precision == "int8":
            raise BadInput(f"int8 needs native code: {reason}; choose bfloat16 or float32") from None
        return Reference(model, cache_bytes=cache_bytes)


class Engine:
    """A model and its tokenizer, ready to talk. For one thread at a time; `service.Service` serves many
    askers.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        backend: Backend | None = None,
        chat_format: ChatFormat | None = None,
    ) -> None:
        """`chat_format` None: the one that the tokenizer's control tokens are made for, if any."""
        self.tokenizer, self.shape = tokenizer, model.shape
        self.chat = ChatRenderer(tokenizer, chat_format)
        self.backend = backend if backend is not None else make_backend(model)
        self.scheduler = Scheduler(self.backend, tokenizer, model.shape.context)

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: str = "cpu",
        precision: Precision = "float32",
        cache_bytes: int | None = None,
    ) -> "Engine":
        """From a folder in Hugging Face's layout. Raises MissingInput or BadInput, also if the model is not
        good enough in int8.

        `cache_bytes`: of keys and values that are kept (None: an eighth of the memory, at most 1 GiB).
        """
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        model, chat = load_model(folder, device=device, dtype=dtype), ChatRenderer.load(folder)
        engine = cls(model, chat.tokenizer, make_backend(model, precision, cache_bytes), chat.format)
        if precision == "int8":
            from crawltalk.engine.perplexity import check

            check(cls(model, chat.tokenizer), engine, precision)
        return engine

    @property
    def context(self) -> int:
        """Longest sequence, prompt and reply together, in tokens."""
        return self.shape.context

    def request(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        stop: frozenset[int] | None = None,
        *,
        number: int = 0,
        samples: int = 1,
        client: str = "",
        echo: bool = False,
    ) -> Request:
        """What the scheduler takes. Raises BadInput for what can never be served."""
        if not 0 < len(prompt) <= self.context:
            raise BadInput(f"the prompt has {len(prompt)} tokens; this model reads 1 to {self.context}")
        if strange := [
            token for token in (*prompt, *sampling.logit_bias) if not 0 <= token < self.shape.vocab_size
        ]:
            raise BadInput(f"this model has no token {strange[0]}; it has {self.shape.vocab_size}")
        constraint = (
            Constraint.of_schema(self._vocabulary, sampling.schema) if sampling.schema is not None else None
        )
        stop = self.chat.stop_ids if stop is None else stop
        return Request(list(prompt), sampling, stop, samples, number, client, constraint, echo)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self.tokenizer, self.chat.stop_ids)

    def recent(self, prompt: Sequence[int]) -> list[int]:
        """A prompt without its oldest tokens, if it is too long."""
        return list(prompt)[-(self.context - 1) :] or [self.tokenizer.eot]

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        stop: frozenset[int] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[list[int]]:
        """The continuation of each prompt, without the stop token. `progress` gets the number of finished
        prompts.

        Row i draws by (seed, i), so the result does not depend on the other rows. A prompt that is too long
        loses its oldest tokens.
        """
        requests = [
            self.request(self.recent(prompt), sampling, stop, number=number)
            for number, prompt in enumerate(prompts)
        ]
        replies: dict[int, list[int]] = {request.number: [] for request in requests}
        finished = 0
        for request, event in self.run(requests):
            replies[request.number] += [token.id for token in event.tokens]
            finished += event.finish is not None
            if event.finish is not None and progress is not None:
                progress(finished)
        return list(replies.values())

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Event]]:
        """Serve requests to their end, or until nobody asks for the next event."""
        for request in requests:
            self.scheduler.submit(request)
        try:
            while self.scheduler.busy:
                yield from self.scheduler.step()
        finally:
            for request in requests:
                request.cancelled = True
            self.scheduler.drop_cancelled()

    def stream(
        self, prompt: Sequence[int], sampling: Sampling, stop: frozenset[int] | None = None
    ) -> Iterator[int]:
        """The continuation of one prompt, token by token."""
        for _, event in self.run([self.request(self.recent(prompt), sampling, stop)]):
            yield from (token.id for token in event.tokens)

    def probabilities(self, prompt: Sequence[int], reply: Sequence[int]) -> list[float]:
        """What probability the model gives to each token of `reply` after `prompt`."""
        request = self.request([*prompt, *reply], Sampling(max_tokens=0), echo=True)
        list(self.run([request]))
        logprobs = [token.logprob or 0.0 for token in request.prompt_tokens[len(prompt) :]]
        return np.exp(logprobs).tolist()

    def embed(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """[prompts, D] fp32: the mean of the final states of a prompt's tokens, at length 1. Raises BadInput
        for one too long.
        """
        found = []
        for prompt in prompts:
            if not 0 < len(prompt) <= self.context:
                raise BadInput(f"a text has {len(prompt)} tokens; this model reads 1 to {self.context}")
            found.append(self.scheduler.read(prompt, self.backend.states).mean(dim=0))
        return torch.nn.functional.normalize(torch.stack(found), dim=-1).numpy()

    def reply(self, messages: Sequence[MessageLike], sampling: Sampling) -> str:
        """The assistant's reply to a conversation."""
        return "".join(self.stream_reply(messages, sampling))

    def stream_reply(self, messages: Sequence[MessageLike], sampling: Sampling) -> Iterator[str]:
        """The reply in pieces of whole characters."""
        for _, event in self.run([self.request(self.prompt(messages)[0], sampling)]):
            if event.text:
                yield event.text

    def prompt(self, messages: Sequence[MessageLike], tools: Sequence[Tool] = ()) -> tuple[list[int], int]:
        """A conversation with the assistant's turn opened, and how many of its oldest messages were left out to
        make it fit (`ChatRenderer.fit`).
        """
        return self.chat.fit(messages, self.context, tools=tools)
