"""Replies with calls of tools: the policy writes, its calls are made, it reads the results and goes on.

A reply is one sequence of token ids. What the policy wrote stands there as it was sampled, with its log-probabilities;
between two of its turns stand the ids that open the next one, with the results as `ChatRenderer` writes them, and none
of these is learned. Where the policy spells as the tokenizer does, the sequence is the rendering of the conversation.
Where it spells otherwise, what was sampled stands.

A verifier reads what the policy said in all of its turns, without calls and results: a tool that says the answer earns
nothing.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from crawltalk.chat.messages import Message, ToolCall, text_of
from crawltalk.chat.tool_calls import CallReader
from crawltalk.core.types import Problem
from crawltalk.engine import BUNDLE, Engine, Sampling
from crawltalk.engine.sequence import Request, StepOutput
from crawltalk.model.transformer import Transformer
from crawltalk.posttraining.rollouts import Rollout, Rollouts
from crawltalk.tools.loop import Episode, Limits, Part
from crawltalk.tools.plain import for_renderer
from crawltalk.tools.tool import Tool


class ToolRollouts(Rollouts):
    """Replies by an engine of this process. A reply whose call is made goes on beside those that are not done yet.

    Equal weights give equal replies only as far as a tool gives equal results.
    """

    def __init__(
        self,
        engine: Engine,
        messages: Callable[[Problem], list[Message]],
        tools: Sequence[Tool],
        max_tokens: int,
        limits: Limits | None = None,
    ) -> None:
        """`messages`: the conversation that asks a problem; `max_tokens`: of all that the policy writes in a reply;
        `limits` None: those for the model's context.
        """
        self.engine, self.messages, self.tools, self.max_tokens = engine, messages, tools, max_tokens
        self.limits = limits or Limits.of_context(engine.context)

    def close(self) -> None:
        """End what the tools keep running."""
        for tool in self.tools:
            tool.close()

    def update_weights(self, model: Transformer) -> None:
        """Copy the weights of the model into the engine."""
        self.engine.update_weights(model)

    def fits(self, problem: Problem) -> bool:
        """Whether there is room for the longest reply without results, or for half of the context."""
        room = min(self.max_tokens, self.engine.context // 2)
        return len(self._prompt(self.messages(problem))) + room <= self.engine.context

    def sample(
        self, problems: Sequence[Problem], numbers: Sequence[int], samples: int, sampling: Sampling
    ) -> list[list[Rollout]]:
        """See `Rollouts`."""
        requests: list[Request] = []
        groups: list[list[_Reply]] = []
        writing: dict[tuple[int, int], _Reply] = {}
        for number, problem in zip(numbers, problems, strict=True):
            messages = self.messages(problem)
            request = self.engine.request(
                self._prompt(messages), sampling, row=number * samples, samples=samples
            )
            group = [
                _Reply(request.prompt, number * samples + index, Episode(messages, self.tools, self.limits))
                for index in range(samples)
            ]
            requests.append(request)
            groups.append(group)
            writing |= {(request.id, index): reply for index, reply in enumerate(group)}
        for output in self.engine.run(requests, BUNDLE):
            reply = writing[output.request.id, output.index]
            reply.add(output)
            if output.finish_reason is None:
                continue
            if (request := self._next_turn(reply, output, sampling)) is not None:
                writing[request.id, 0] = reply
                requests.append(request)  # among those that are cancelled if this is interrupted
                self.engine.scheduler.add(request)
        return [[reply.rollout() for reply in group] for group in groups]

    def _next_turn(self, reply: "_Reply", output: StepOutput, sampling: Sampling) -> Request | None:
        """The turn after the one that has ended, with the results of its calls; None if the reply ends with it, or has
        no room for another one.
        """
        calls = reply.end_turn()
        if output.finish_reason != "stop":  # a turn that was cut short calls nothing
            return None
        reply.finished = not calls
        left = sampling.max_tokens - sum(reply.learned)
        if not calls or left < 1:
            return None
        for call in calls:
            reply.episode.make(call)
        between = self._between(reply.episode)
        if len(reply.prompt) + len(reply.ids) + len(between) > self.engine.context:
            return None
        reply.read(between)
        drawn = random.Random(
            f"{sampling.seed} {reply.episode.rounds}"
        )  # other numbers than in the turns before
        seed = drawn.getrandbits(63)
        return self.engine.request(
            [*reply.prompt, *reply.ids], replace(sampling, max_tokens=left, seed=seed), row=reply.row
        )

    def _prompt(self, messages: Sequence[Message]) -> list[int]:
        definitions = [tool.definition for tool in self.tools]
        messages, offered = for_renderer(self.engine.renderer, messages, definitions)
        return self.engine.renderer.encode_chat(messages, tools=offered, add_generation_prompt=True)

    def _between(self, episode: Episode) -> list[int]:
        """What stands between the end of the last turn of the assistant and its next one."""
        definitions = [tool.definition for tool in self.tools]
        messages, offered = for_renderer(self.engine.renderer, episode.messages, definitions)
        ids, written = self.engine.renderer.render(messages, tools=offered, add_generation_prompt=True)
        return ids[len(written) - written[::-1].index(True) :]


@dataclass
class _Reply:
    """A reply under way."""

    prompt: list[int]
    row: int
    episode: Episode
    """Begins with the messages of the prompt."""
    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    learned: list[bool] = field(default_factory=list)
    finished: bool = False
    asked: int = 0
    """Messages of the prompt."""
    _parts: list[Part] = field(default_factory=list)
    """Texts and calls of the present turn."""
    _reader: CallReader | None = None

    def __post_init__(self) -> None:
        self.asked = len(self.episode.messages)

    def add(self, output: StepOutput) -> None:
        """What the policy wrote."""
        if self._reader is None:
            self._reader = CallReader(self.episode.offered)
        tokens = [*output.tokens, *([output.stop_token] if output.stop_token is not None else [])]
        self.ids += [token.id for token in tokens]
        self.log_probs += [token.logprob or 0.0 for token in tokens]
        self.learned += [True] * len(tokens)
        self._parts += self._reader.read(output.text, final=output.finish_reason is not None)

    def read(self, ids: Sequence[int]) -> None:
        """What it only reads."""
        self.ids += ids
        self.log_probs += [0.0] * len(ids)
        self.learned += [False] * len(ids)

    def end_turn(self) -> list[ToolCall]:
        """The calls that are to be made."""
        calls = self.episode.add_reply(self._parts)
        self._parts, self._reader = [], None
        return calls

    def rollout(self) -> Rollout:
        answers = self.episode.messages[self.asked :]
        said = [text_of(message) for message in answers if message.role == "assistant"]
        return Rollout(
            prompt=self.prompt,
            reply=self.ids,
            log_probs=self.log_probs,
            learned=self.learned,
            text="\n".join(filter(None, said)),
            finished=self.finished,
            calls=len(self.episode.results),
        )
