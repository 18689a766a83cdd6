"""The part that all APIs share: a request goes to the engine, whose outputs become replies."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from msgspec import UNSET, UnsetType
from starlette.requests import Request

from crawltalk.core.errors import ContextOverflow
from crawltalk.engine import PromptEmbeddings, Sampling
from crawltalk.engine.constraints import BadSchema
from crawltalk.engine.sequence import FinishReason, StepOutput, Token
from crawltalk.engine.service import Stream
from crawltalk.serve.api.errors import bad_request, blaming, shutting_down
from crawltalk.serve.api.protocol import GenerationRequest, PromptTokensDetails, Usage
from crawltalk.serve.state import ServerState

T = TypeVar("T")
_MAX_CHOICES = 2048
"""Of one request."""


def sampling(
    request: GenerationRequest, *, max_tokens: int, logprobs: int | None, schema: str | None = None
) -> Sampling:
    """A request's settings for the engine, with OpenAI's defaults. Raises BadInput."""
    stop = (request.stop,) if isinstance(request.stop, str) else request.stop or ()
    top_p = or_default(request.top_p, 1.0)
    return Sampling(
        temperature=or_default(request.temperature, 1.0),
        top_k=max(0, request.top_k or 0) if top_p else 1,
        top_p=top_p or 1.0,
        min_p=request.min_p or 0.0,
        repetition_penalty=or_default(request.repetition_penalty, 1.0),
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        logit_bias=request.logit_bias or {},
        max_tokens=max_tokens,
        seed=secrets.randbits(63) if request.seed is None else request.seed,
        stop=tuple(filter(None, stop)),
        logprobs=logprobs,
        schema=schema,
    )


def or_default(value: T | None, default: T) -> T:
    """`value`, or `default` if it is None."""
    return default if value is None else value


@dataclass
class Reply:
    """One reply, as far as it is generated."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    finish: FinishReason | None = None
    first_time: float = 0.0
    """When the first tokens came, by `time.perf_counter`."""
    first_tokens: int = 0
    """How many tokens came with them."""

    @property
    def token_ids(self) -> list[int]:
        return [token.id for token in self.tokens]

    def stop_string(self, stops: Iterable[str]) -> str | None:
        """Which of these ended it, if one did: it follows the text in what its tokens spell."""
        spelled = b"".join(token.text for token in self.tokens).decode(errors="replace")
        rest = spelled.removeprefix(self.text) if self.finish == "stop" else ""
        return next((stop for stop in stops if stop and rest.startswith(stop)), None)


class Generation:
    """One request in the engine: a stream for each prompt, each with `n` replies."""

    def __init__(
        self,
        server: ServerState,
        http_request: Request,
        request: GenerationRequest,
        prompts: Sequence[Sequence[int]],
        embeddings: Sequence[PromptEmbeddings] = (),
    ) -> None:
        """`submit` starts the work. `embeddings`: of a single prompt. Raises ApiError."""
        self.server, self.request, self.prompts, self.embeddings = server, request, prompts, embeddings
        self.service = server.service(request.model)
        self.client, self.log_entry = http_request.state.client, http_request.state.log_entry
        self.id, self.created, self.samples = self.log_entry["id"], int(time.time()), request.n or 1
        self.log_entry["model"] = request.model
        self.streams: list[Stream] = []
        self.replies = [Reply() for _ in range(len(prompts) * self.samples)]
        """In the order of the choices: those of the first prompt, those of the second one ..."""
        self._tracer = server.tracers.get(request.model)
        if len(prompts) > self.service.queue:
            raise bad_request(
                f"{len(prompts)} prompts are more than the {self.service.queue} that may wait in the queue: send fewer",
                "prompt",
            )
        if len(self.replies) > _MAX_CHOICES:
            raise bad_request(
                f"{len(prompts)} prompts with {self.samples} replies each are more than {_MAX_CHOICES:,}", "n"
            )
        if request.trace and self._tracer is None:
            raise bad_request("this model's training data is not available: leave trace out", "trace")

    async def submit(
        self, sampling: Sampling, *, echo: bool = False, schema_from: str = "response_format"
    ) -> None:
        """Submit all prompts to the engine, or none if this raises ApiError or QueueFull. `schema_from`: the field
        that the schema comes from.
        """
        if self.server.draining:  # since the body was read
            raise shutting_down()
        try:
            for prompt in self.prompts:
                with (
                    blaming("logit_bias"),
                    blaming("prompt", ContextOverflow),
                    blaming(schema_from, BadSchema),
                ):
                    stream = await self.service.submit(
                        prompt,
                        sampling,
                        samples=self.samples,
                        client=self.client,
                        prompt_logprobs=echo,
                        embeddings=self.embeddings,
                    )
                self.streams.append(stream)
        except BaseException:
            await self._cancel()
            raise
        if (constraint := self.streams[0].request.constraint) is not None and constraint.relaxed:
            relaxed = [f"{schema_from} ({reason})" for reason in constraint.relaxed]
            self.log_entry["ignored"] = [*self.log_entry.get("ignored", []), *relaxed]

    async def _cancel(self) -> None:
        for stream in self.streams:
            await stream.aclose()

    async def events(self) -> AsyncIterator[tuple[int, StepOutput]]:
        """(index of the choice, event), prompt after prompt; each is added to `replies` first. Raises ApiError
        if the server shuts down.
        """
        began = time.perf_counter()
        for number, stream in enumerate(self.streams):
            first = number * self.samples
            async for event in stream:
                index = first + event.index
                self._add(self.replies[index], event, began)
                yield index, event
            if any(
                reply.finish in (None, "cancelled") for reply in self.replies[first : first + self.samples]
            ):
                raise shutting_down()

    def _add(self, reply: Reply, event: StepOutput, began: float) -> None:
        metrics, model, now = self.server.metrics, self.request.model, time.perf_counter()
        if event.tokens and not reply.tokens:
            reply.first_time, reply.first_tokens = now, len(event.tokens)
            metrics.first_token.labels(model).observe(now - began)
        reply.text += event.text
        reply.tokens += event.tokens
        reply.finish = event.finish_reason
        later = len(reply.tokens) - reply.first_tokens
        if event.finish_reason is not None and later:
            metrics.each_token.labels(model).observe((now - reply.first_time) / later)

    async def wait(self) -> None:
        """Wait until all replies are whole."""
        async for _ in self.events():
            pass

    async def close(self) -> None:
        """Cancel what is not finished, and complete the entry in the access log."""
        await self._cancel()
        usage = self.usage()
        self.log_entry |= {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_tokens": usage.prompt_tokens_details.cached_tokens,
        }
        if self.server.settings.log_prompts:
            self.log_entry["prompts"] = list(map(self.service.engine.tokenizer.decode, self.prompts))
            self.log_entry["replies"] = [reply.text for reply in self.replies]

    def usage(self) -> Usage:
        """The tokens so far."""
        prompt_tokens = sum(map(len, self.prompts))
        completion_tokens = sum(len(reply.tokens) for reply in self.replies)
        cached = sum(stream.cached_tokens for stream in self.streams)
        total = prompt_tokens + completion_tokens
        return Usage(prompt_tokens, completion_tokens, total, PromptTokensDetails(cached))

    async def trace(self, index: int) -> list[dict[str, Any]] | UnsetType:
        """Where a reply occurs in the training data; UNSET unless the request sets `trace`."""
        if not self.request.trace or self._tracer is None:
            return UNSET
        reply = self.replies[index]
        return await asyncio.to_thread(self._tracer, reply.text, reply.token_ids)

    def token_ids(self, tokens: Sequence[Token]) -> list[int] | UnsetType:
        """The ids of these tokens; UNSET unless the request sets `return_token_ids`."""
        return [token.id for token in tokens] if self.request.return_token_ids else UNSET

    def prompt_token_ids(self, index: int) -> list[int] | UnsetType:
        """Of a reply's prompt; UNSET unless the request sets `return_token_ids`."""
        return list(self.prompts[index // self.samples]) if self.request.return_token_ids else UNSET

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with the usage."""
        return self.request.stream_options is not None and bool(self.request.stream_options.include_usage)
