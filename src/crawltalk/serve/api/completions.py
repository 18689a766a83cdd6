"""POST /v1/completions, in the form that lm-evaluation-harness reads (`local-completions`)."""

import asyncio
import codecs
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Literal

from starlette.requests import Request
from starlette.types import ASGIApp

from crawltalk.engine import Engine
from crawltalk.engine.sequence import Token
from crawltalk.serve.api.errors import bad_request
from crawltalk.serve.api.generation import Generation, Reply, default, respond, sampling
from crawltalk.serve.api.protocol import (
    CompletionAnswer,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
)
from crawltalk.tokenizer import Tokenizer

if TYPE_CHECKING:
    from crawltalk.serve.app import Serving

_MAX_TOKENS = 16
"""OpenAI's default."""
_END = Token(-1, b"", None, ())
"""Stands for the whole of a reply without any token: lm-evaluation-harness asks for one, and leaves the last
one out.
"""


async def completions(serving: "Serving", request: Request, asked: CompletionRequest) -> ASGIApp:
    """Texts, continued."""
    if asked.suffix:
        raise bad_request("suffix is not supported: models here write from left to right", "suffix")
    if asked.best_of not in (None, asked.n or 1):
        raise bad_request("best_of is not supported, but as the same number as n", "best_of")
    most = default(asked.max_tokens, _MAX_TOKENS)
    if most == 0 and not asked.echo:
        raise bad_request("max_tokens: 0 needs echo: true", "max_tokens")
    engine = serving.service(asked.model).engine
    texts = prompts_of(asked.prompt, "prompt")
    prompts = await asyncio.to_thread(lambda: [to_ids(engine, prompt, "prompt") for prompt in texts])
    generation = Generation(serving, request, asked, prompts)
    settings = sampling(asked, max_tokens=min(most, engine.context), logprobs=asked.logprobs)
    await generation.submit(settings, echo=bool(asked.echo))
    return await respond(
        _Completion(generation, asked, [isinstance(text, str) for text in texts], engine.tokenizer)
    )


def prompts_of(given: str | list[str | int | list[int]], param: str) -> Sequence[str | list[int]]:
    """Each of OpenAI's four forms of input as a list of texts and lists of ids. Raises ApiError for a
    mixture.
    """
    if isinstance(given, str):
        return [given]
    texts = [item for item in given if isinstance(item, str)]
    tokens = [item for item in given if isinstance(item, int)]
    lists = [item for item in given if isinstance(item, list)]
    if len(given) not in (len(texts), len(tokens), len(lists)):
        raise bad_request(f"{param} is a mixture of texts, tokens and lists", param)
    return texts or lists or [tokens]


def to_ids(engine: Engine, prompt: str | list[int], param: str) -> list[int]:
    """The tokens of a prompt; a text begins a document. Raises ApiError for tokens that the model does not
    have.
    """
    if isinstance(prompt, str):
        return [engine.tokenizer.eot, *engine.tokenizer.encode(prompt)]
    if not prompt or max(prompt) >= engine.tokenizer.size:
        raise bad_request(
            f"a list of tokens has one at least, and none above {engine.tokenizer.size - 1}", param
        )
    return prompt


class _Completion:
    """How a generation becomes a completion."""

    def __init__(
        self, generation: Generation, asked: CompletionRequest, begun: Sequence[bool], tokenizer: Tokenizer
    ) -> None:
        """`begun`: whether the server wrote the first token of a prompt, which is no part of its echo."""
        self.generation, self.asked, self.begun, self.tokenizer = generation, asked, begun, tokenizer
        self.id = f"cmpl-{generation.id}"

    async def answer(self) -> CompletionAnswer:
        """The whole answer."""
        await self.generation.wait()
        choices = [
            CompletionChoice(
                index=index,
                text=self._prompt(index)[0] + reply.text,
                logprobs=self._logprobs([*self._prompt(index)[1], *_said(reply)]),
                finish_reason=_finish(reply.finish),
                trace=await self.generation.trace(index),
            )
            for index, reply in enumerate(self.generation.replies)
        ]
        return self._part(choices, usage=True)

    async def chunks(self) -> AsyncIterator[CompletionAnswer]:
        """The answer in parts."""
        characters: dict[int, int] = {}
        async for index, event in self.generation.events():
            prompt, tokens = self._prompt(index) if index not in characters else ("", ())
            before = characters.get(index, 0)
            choice = CompletionChoice(index=index, text=prompt + event.text)
            choice.logprobs = self._logprobs([*tokens, *event.tokens], before)
            characters[index] = before + len(choice.text)
            if event.finish_reason is not None:
                choice.finish_reason = _finish(event.finish_reason)
                choice.trace = await self.generation.trace(index)
            yield self._part([choice])
        if self.generation.wants_usage:
            yield self._part([], usage=True)

    def _part(self, choices: list[CompletionChoice], *, usage: bool = False) -> CompletionAnswer:
        return CompletionAnswer(
            id=self.id,
            created=self.generation.created,
            model=self.asked.model,
            choices=choices,
            usage=self.generation.usage() if usage else None,
        )

    def _prompt(self, index: int) -> tuple[str, Sequence[Token]]:
        """The echo of a choice's prompt: nothing unless it was asked for."""
        if not self.asked.echo:
            return "", ()
        number = index // self.generation.samples
        tokens = self.generation.streams[number].prompt[self.begun[number] :]
        return b"".join(token.text for token in tokens).decode(errors="replace"), tokens

    def _logprobs(self, tokens: Sequence[Token], characters: int = 0) -> CompletionLogprobs | None:
        """Of tokens that come after so many characters of the text."""
        if self.asked.logprobs is None:
            return None
        found = CompletionLogprobs([], [], [], [])
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for token in tokens:
            found.tokens.append(token.text.decode(errors="replace"))
            found.token_logprobs.append(token.logprob)
            found.top_logprobs.append(self._top(token))
            found.text_offset.append(characters)
            characters += len(decoder.decode(token.text))
        return found

    def _top(self, token: Token) -> dict[str, float] | None:
        """The likeliest tokens and the one said; of tokens that are written the same the likeliest."""
        if token.logprob is None:
            return None
        top = {}
        for index, logprob in (*token.top, (token.id, token.logprob)):
            top.setdefault(self.tokenizer.word(index).decode(errors="replace"), logprob)
        return top


def _finish(finish: str | None) -> Literal["stop", "length"]:
    return "stop" if finish == "stop" else "length"


def _said(reply: Reply) -> list[Token]:
    return reply.tokens or ([_END] if reply.finish == "stop" else [])
