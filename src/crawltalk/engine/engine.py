"""The engine: a model behind a scheduler, for all code in crawltalk that generates."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from functools import cached_property
from itertools import groupby
from typing import Protocol

import numpy as np
import torch

from crawltalk.chat.messages import MessageLike, ToolCall
from crawltalk.chat.render import ChatRenderer
from crawltalk.chat.tool_calls import CallReader, Tool, call_schema
from crawltalk.core.errors import BadInput, ContextOverflow
from crawltalk.engine.backends import Backend
from crawltalk.engine.backends.cpu import CpuBackend, Precision, Unavailable
from crawltalk.engine.backends.torch import TorchBackend
from crawltalk.engine.constraints import Constraint, Vocabulary
from crawltalk.engine.sampling import Sampling
from crawltalk.engine.scheduler import Scheduler
from crawltalk.engine.sequence import PromptEmbeddings, Request, StepOutput
from crawltalk.model.transformer import Transformer
from crawltalk.tokenizer import Tokenizer
from crawltalk.tools.loop import Episode
from crawltalk.tools.plain import for_renderer

BUNDLE = 16
"""Tokens of a sequence at once, where nobody waits for each."""


def make_backend(
    model: Transformer, precision: Precision = "float32", cache_bytes: int | None = None
) -> Backend:
    """Native code on a CPU; torch, in the model's own precision, on a GPU and where there is none. Raises
    BadInput for int8 then.
    """
    try:
        if model.embedding.weight.device.type != "cpu":
            raise Unavailable("native code is for CPUs")
        return CpuBackend(model, precision, cache_bytes=cache_bytes)
    except Unavailable as reason:
        if precision == "int8":
            raise BadInput(f"int8 needs native code: {reason}; choose bfloat16 or float32") from None
        return TorchBackend(model, cache_bytes=cache_bytes)


class MediaReader(Protocol):
    """What makes vectors of the images and sounds in a conversation (`crawltalk.multimodal.media`)."""

    def embeddings(
        self, messages: Sequence[MessageLike], prompt: Sequence[int]
    ) -> Sequence[PromptEmbeddings]:
        """Those that stand in the prompt that the conversation became. Raises BadInput for what cannot be read."""
        ...


class Engine:
    """A model and its tokenizer, ready to generate. Not thread-safe; `service.Service` serves many
    clients.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        backend: Backend | None = None,
        renderer: ChatRenderer | None = None,
    ) -> None:
        """`renderer` None: conversations as the tokenizer's control tokens suggest."""
        self.tokenizer, self.shape = tokenizer, model.shape
        self.renderer = renderer if renderer is not None else ChatRenderer(tokenizer)
        self.backend = backend if backend is not None else make_backend(model)
        self.media: MediaReader | None = None
        """Reads images and sounds, where the model does."""
        self.scheduler = Scheduler(self.backend, tokenizer, model.shape.context)

    def update_weights(self, model: Transformer) -> None:
        """Copy the weights of another model of the same shape, adapters added, in the engine's own precision (int8
        without its gate). Running sequences keep their tokens; keys and values are computed again. Raises
        BadInput for another shape.
        """
        differences = [
            f"{field.name} {new}, not {own}"
            for field in fields(self.shape)
            if (new := getattr(model.shape, field.name)) != (own := getattr(self.shape, field.name))
        ]
        if differences:
            raise BadInput(
                f"these weights are of another shape ({', '.join(differences)}): make a new engine for them"
            )
        self.backend.update_weights(model)
        self.scheduler.weights_changed()

    @property
    def context(self) -> int:
        """Longest sequence, prompt and reply together, in tokens."""
        return self.shape.context

    def request(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        stop_ids: frozenset[int] | None = None,
        *,
        row: int = 0,
        samples: int = 1,
        client: str = "",
        prompt_logprobs: bool = False,
        logprobs_from: int = 0,
        embeddings: Sequence[PromptEmbeddings] = (),
    ) -> Request:
        """A request for `run` or the scheduler; see `Request`. Raises BadInput for what can never be served. With
        `prompt_logprobs` and one sample a prompt may have one token more than the model reads: then no reply
        follows.
        """
        self._check_length(prompt, self.context + (prompt_logprobs and samples == 1))
        for token in (*prompt, *sampling.logit_bias):
            if not 0 <= token < self.shape.vocab_size:
                raise BadInput(f"this model has no token {token}; it has {self.shape.vocab_size}")
        constraint = (
            Constraint.of_schema(self._vocabulary, sampling.schema) if sampling.schema is not None else None
        )
        return Request(
            list(prompt),
            sampling,
            self.renderer.stop_ids if stop_ids is None else stop_ids,
            samples=samples,
            row=row,
            client=client,
            constraint=constraint,
            prompt_logprobs=prompt_logprobs,
            logprobs_from=logprobs_from,
            embeddings=self._check_embeddings(embeddings, len(prompt)),
        )

    def _check_length(self, prompt: Sequence[int], most: int) -> None:
        """Raises ContextOverflow, or BadInput for a prompt without tokens."""
        if not prompt:
            raise BadInput("the prompt has no tokens; it needs one at least")
        if len(prompt) > most:
            raise ContextOverflow(
                f"This model's maximum context length is {self.context} tokens; the prompt has {len(prompt)}: "
                "make it shorter"
            )

    def _check_embeddings(
        self, embeddings: Sequence[PromptEmbeddings], length: int
    ) -> tuple[PromptEmbeddings, ...]:
        """The embeddings, if they fit a prompt of this length. Raises BadInput."""
        if embeddings and self.shape.family == "speedrun":
            raise BadInput(
                "models of the family speedrun read tokens only, since their layers look them up again"
            )
        end = 0
        for one in embeddings:
            if (
                one.vectors.ndim != 2
                or one.vectors.shape[1] != self.shape.width
                or one.vectors.dtype != np.float32
            ):
                raise BadInput(
                    f"embeddings are {one.vectors.dtype} of shape {list(one.vectors.shape)}; "
                    f"this model reads float32 of shape [positions, {self.shape.width}]"
                )
            if not end <= one.start < one.end <= length:
                raise BadInput(
                    f"embeddings are at positions {one.start} to {one.end - 1}; give them in order, apart, "
                    f"and within the prompt, whose last position is {length - 1}"
                )
            end = one.end
        return tuple(embeddings)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self.tokenizer, self.renderer.stop_ids)

    def truncate(self, prompt: Sequence[int]) -> list[int]:
        """A prompt without its oldest tokens, if it is too long."""
        return list(prompt)[-(self.context - 1) :] or [*self.renderer.begin] or [self.tokenizer.eot]

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        stop_ids: frozenset[int] | None = None,
        progress: Callable[[int], None] | None = None,
        embeddings: Sequence[Sequence[PromptEmbeddings]] = (),
    ) -> list[list[int]]:
        """The continuation of each prompt, without the stop token. `stop_ids` None: the ends of a text and
        of a turn. `progress` gets the number of finished prompts. `embeddings`: of each prompt, if some have any.

        Row i samples with (seed, i), so the result does not depend on the other rows. Equal prompts that follow each
        other are computed once. A prompt that is too long loses its oldest tokens.
        """
        cut = [self.truncate(prompt) for prompt in prompts]
        groups = groupby(range(len(cut)), key=lambda row: row if embeddings else cut[row])
        requests = [
            self.request(
                cut[row],
                sampling,
                stop_ids,
                row=row,
                samples=1 + len(list(others)),
                embeddings=embeddings[row] if embeddings else (),
            )
            for row, others in ((next(rows), rows) for _, rows in groups)
        ]
        replies = {
            (request.id, index): list[int]() for request in requests for index in range(request.samples)
        }
        finished = 0
        for output in self.run(requests, BUNDLE):
            replies[output.request.id, output.index] += [token.id for token in output.tokens]
            finished += output.finish_reason is not None
            if output.finish_reason is not None and progress is not None:
                progress(finished)
        return list(replies.values())

    def run(self, requests: Sequence[Request], most: int = 1) -> Iterator[StepOutput]:
        """Serve requests to their end, or until the iterator is closed. `most`: tokens of an output where they need not
        be shown one by one; more at once take less time.
        """
        for request in requests:
            self.scheduler.add(request)
        try:
            while self.scheduler.busy:
                yield from self.scheduler.step(most)
        finally:
            for request in requests:
                request.cancelled = True
            self.scheduler.drop_cancelled()

    def stream(
        self, prompt: Sequence[int], sampling: Sampling, stop_ids: frozenset[int] | None = None
    ) -> Iterator[int]:
        """The continuation of one prompt, token by token."""
        for output in self.run([self.request(self.truncate(prompt), sampling, stop_ids)]):
            yield from (token.id for token in output.tokens)

    def probabilities(self, prompt: Sequence[int], reply: Sequence[int]) -> list[float]:
        """The model's probability of each token of `reply` after `prompt`."""
        return np.exp(self.logprobs([(prompt, reply)])[0]).tolist()

    def logprobs(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Of each (prompt, reply): the log-probability of each token of the reply after the prompt, which has a
        token at least. Prompts that begin alike are computed once, if their beginning is in the cache.
        """
        score = Sampling(max_tokens=0)
        requests = [
            self.request([*prompt, *reply], score, prompt_logprobs=True, logprobs_from=len(prompt))
            for prompt, reply in pairs
        ]
        for _ in self.run(requests):
            pass
        return [[token.logprob or 0.0 for token in request.prompt_tokens] for request in requests]

    def logits(self, tokens: Sequence[int]) -> torch.Tensor:
        """Logits of the next token after each token of a text, [T, V] fp32."""
        return self.scheduler.prefill(tokens, self.backend.forward)

    def embed(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """[prompts, D] fp32: the mean of the final states of a prompt's tokens, at length 1. Raises BadInput
        for one too long.
        """
        means = []
        for prompt in prompts:
            self._check_length(prompt, self.context)
            means.append(self.scheduler.prefill(prompt, self.backend.states).mean(dim=0))
        return torch.nn.functional.normalize(torch.stack(means), dim=-1).numpy()

    def reply(self, messages: Sequence[MessageLike], sampling: Sampling) -> str:
        """The assistant's reply to a conversation."""
        return "".join(self.stream_reply(messages, sampling))

    def stream_reply(self, messages: Sequence[MessageLike], sampling: Sampling) -> Iterator[str]:
        """The reply in pieces of whole characters."""
        prompt, _ = self.chat_prompt(messages)
        embeddings = self.embeddings_of(messages, prompt)
        for output in self.run([self.request(prompt, sampling, embeddings=embeddings)]):
            if output.text:
                yield output.text

    def stream_parts(self, episode: Episode, sampling: Sampling) -> Iterator[str | ToolCall]:
        """The next reply of an answer with tools: pieces of text, and calls."""
        tools = episode.offered
        reader = CallReader(tools, must_call=episode.must_call)
        if episode.must_call:
            sampling = replace(sampling, schema=json.dumps(call_schema(tools)), whole=True)
        prompt, _ = self.chat_prompt(*for_renderer(self.renderer, episode.messages, tools))
        embeddings = self.embeddings_of(episode.messages, prompt)
        for output in self.run([self.request(prompt, sampling, embeddings=embeddings)]):
            yield from reader.read(output.text, final=output.finish_reason is not None)

    def chat_prompt(
        self, messages: Sequence[MessageLike], tools: Sequence[Tool] = (), *, reply: int | None = None
    ) -> tuple[list[int], int]:
        """A conversation with the assistant's turn opened, and how many of its oldest messages were left out to
        make it fit, with room for `reply` tokens (`ChatRenderer.fit`).
        """
        return self.renderer.fit(messages, self.context, tools=tools, reply=reply)

    def embeddings_of(
        self, messages: Sequence[MessageLike], prompt: Sequence[int]
    ) -> Sequence[PromptEmbeddings]:
        """The images and sounds of a conversation, for the request with its prompt. Raises BadInput for what cannot be
        read.
        """
        return () if self.media is None else self.media.embeddings(messages, prompt)
