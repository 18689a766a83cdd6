"""POST /v1/completions, in the form that lm-evaluation-harness reads (`local-completions`)."""

import asyncio
import codecs
from collections.abc import AsyncIterator, Sequence
from typing import Literal

from msgspec import UNSET
from starlette.requests import Request
from starlette.types import ASGIApp

from crawltalk.engine.sequence import Token
from crawltalk.serve.api.errors import bad_request
from crawltalk.serve.api.generation import Generation, Reply, or_default, sampling
from crawltalk.serve.api.inputs import split_inputs, to_ids
from crawltalk.serve.api.protocol import (
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
)
from crawltalk.serve.api.sending import ResponseBuilder, respond
from crawltalk.serve.state import ServerState
from crawltalk.tokenizer import Tokenizer

_MAX_TOKENS = 16
"""OpenAI's default."""
_END = Token(-1, b"", None, ())
"""Stands for a reply without any token: lm-evaluation-harness asks for one token and ignores the last one. A reply has
none if it ends at once, or if the prompt is all that the context has room for.
"""


async def completions(server: ServerState, http_request: Request, request: CompletionRequest) -> ASGIApp:
    """Continues texts."""
    if request.suffix:
        raise bad_request("suffix is not supported: models here write from left to right", "suffix")
    if request.best_of not in (None, request.n or 1):
        raise bad_request("best_of is not supported, but as the same number as n", "best_of")
    max_tokens = or_default(request.max_tokens, _MAX_TOKENS)
    if max_tokens == 0 and not request.echo:
        raise bad_request("max_tokens: 0 needs echo: true", "max_tokens")
    engine = server.service(request.model).engine
    texts, new = split_inputs(request.prompt, "prompt"), bool(request.new_document)
    prompts = await asyncio.to_thread(
        lambda: [to_ids(engine, text, "prompt", new_document=new) for text in texts]
    )
    generation = Generation(server, http_request, request, prompts)
    most = engine.context if max_tokens == -1 else min(max_tokens, engine.context)
    await generation.submit(
        sampling(request, max_tokens=most, logprobs=_logprobs(request)), echo=bool(request.echo)
    )
    skipped = [int(isinstance(text, str) and (new or not text)) for text in texts]
    return await respond(_CompletionBuilder(generation, request, skipped, engine.tokenizer))


def _logprobs(request: CompletionRequest) -> int | None:
    """How many of the likeliest tokens are wanted at each position; None: no log-probabilities."""
    return (1 if request.logprobs else None) if isinstance(request.logprobs, bool) else request.logprobs


class _CompletionBuilder(ResponseBuilder):
    """Writes a generation as a completion."""

    def __init__(
        self,
        generation: Generation,
        request: CompletionRequest,
        skipped: Sequence[int],
        tokenizer: Tokenizer,
    ) -> None:
        """`skipped`: of each prompt, how many first tokens the server has added, which are not echoed."""
        self.generation, self.request = generation, request
        self.skipped, self.tokenizer = skipped, tokenizer
        self.id = f"cmpl-{generation.id}"
        self._no_usage = None if generation.include_usage else UNSET

    async def response(self) -> Completion:
        """The whole response."""
        await self.generation.wait()
        choices = [
            CompletionChoice(
                index=index,
                text=self._prompt(index)[0] + reply.text,
                logprobs=self._logprobs([*self._prompt(index)[1], *self._tokens(reply)]),
                finish_reason=_finish(reply.finish),
                token_ids=self.generation.token_ids(reply.tokens),
                prompt_token_ids=self.generation.prompt_token_ids(index),
                trace=await self.generation.trace(index),
            )
            for index, reply in enumerate(self.generation.replies)
        ]
        return self._part(choices, usage=True)

    async def chunks(self) -> AsyncIterator[Completion]:
        """The response in parts, one for each event of the engine."""
        characters: dict[int, int] = {}
        async for index, event in self.generation.events():
            prompt, tokens = self._prompt(index) if index not in characters else ("", ())
            before = characters.get(index, 0)
            choice = CompletionChoice(
                index=index, text=prompt + event.text, token_ids=self.generation.token_ids(event.tokens)
            )
            if index not in characters:
                choice.prompt_token_ids = self.generation.prompt_token_ids(index)
            choice.logprobs = self._logprobs([*tokens, *event.tokens], before)
            characters[index] = before + len(choice.text)
            if event.finish_reason is not None:
                choice.finish_reason = _finish(event.finish_reason)
                choice.trace = await self.generation.trace(index)
            yield self._part([choice])
        if self.generation.include_usage:
            yield self._part([], usage=True)

    def _part(self, choices: list[CompletionChoice], *, usage: bool = False) -> Completion:
        return Completion(
            id=self.id,
            created=self.generation.created,
            model=self.request.model,
            choices=choices,
            usage=self.generation.usage() if usage else self._no_usage,
        )

    def _tokens(self, reply: Reply) -> list[Token]:
        return reply.tokens or ([] if self.request.max_tokens == 0 else [_END])

    def _prompt(self, index: int) -> tuple[str, Sequence[Token]]:
        """The echo of a choice's prompt: nothing unless the request sets `echo`."""
        if not self.request.echo:
            return "", ()
        number = index // self.generation.samples
        tokens = self.generation.streams[number].prompt[self.skipped[number] :]
        return b"".join(token.text for token in tokens).decode(errors="replace"), tokens

    def _logprobs(self, tokens: Sequence[Token], characters: int = 0) -> CompletionLogprobs | None:
        """The log-probabilities of tokens that come after so many characters of the text."""
        if _logprobs(self.request) is None:
            return None
        logprobs = CompletionLogprobs([], [], [], [])
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for token in tokens:
            logprobs.tokens.append(token.text.decode(errors="replace"))
            logprobs.token_logprobs.append(token.logprob)
            logprobs.top_logprobs.append(self._top(token))
            logprobs.text_offset.append(characters)
            characters += len(decoder.decode(token.text))
        return logprobs

    def _top(self, token: Token) -> dict[str, float] | None:
        """The likeliest tokens and the generated one. Of tokens with the same text the likeliest counts."""
        if token.logprob is None:
            return None
        top = {}
        for index, logprob in (*token.top, (token.id, token.logprob)):
            top.setdefault(self.tokenizer.word(index).decode(errors="replace"), logprob)
        return top


def _finish(finish: str | None) -> Literal["stop", "length"]:
    return "stop" if finish == "stop" else "length"
