"""Ways to answer a battery's problems: at once, after thinking for so many tokens, with functions.

`direct`: the answer is opened for the model, so no token comes before it. `steps`: it thinks first; its thinking is
cut after each budget of tokens, the answer is opened, and what it then says is scored (budget forcing; Muennighoff et
al. 2025, section 3.1). `tools`: its first reply has to be a call; calls are run and their results are read to it, until
it answers.

Each way begins with solved examples of the battery's training split. A model without a chat format, and a run's base
model, gets them as one text.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from crawltalk.chat.messages import FunctionCall, Message, ToolCall
from crawltalk.chat.tool_calls import (
    HERMES,
    CallReader,
    call_schema,
    tools_description,
    written_call,
    written_result,
)
from crawltalk.chat.tool_calls import Tool as Definition
from crawltalk.core.errors import BadInput
from crawltalk.engine import Engine, Sampling
from crawltalk.evals.batteries.battery import ANSWER, Battery, Worked
from crawltalk.evals.results import Result
from crawltalk.tokenizer.tokenizer import RESPONSE_START
from crawltalk.tools.loop import Episode
from crawltalk.tools.tool import Tool

Way = Literal["direct", "steps", "tools"]
WAYS: tuple[Way, ...] = ("direct", "steps", "tools")
ROUNDS = 4
"""Replies with calls before the answer is opened."""
CALL_TOKENS = 64
"""Of a reply that calls functions, at most."""
EXAMPLES = 2
"""Solved problems before the question; fewer if the context has no room."""


class Interview:
    """One model that answers the problems of one battery."""

    def __init__(
        self,
        engine: Engine,
        battery: Battery,
        *,
        chat: bool,
        seed: int = 0,
        examples: int = EXAMPLES,
    ) -> None:
        self.engine, self.battery, self.chat = engine, battery, chat
        self.examples: dict[str, list[Worked]] = {}
        for worked in battery.problems(seed, "train", examples):
            shown = self.examples.setdefault(worked.problem.task, [])
            if len(shown) < examples:
                shown.append(worked)

    def ask(self, problems: Sequence[Worked], way: Way, budgets: Sequence[int]) -> list[Result]:
        """The results of one way, several of each problem in the way `steps`. There are none of problems that do
        not fit into the context, and of functions if the model does not chat.
        """
        results: list[Result] = []
        pair_of = {worked.problem.prompt: worked.pair for worked in problems if worked.pair}
        for kind in dict.fromkeys(worked.problem.task for worked in problems):
            members = [worked for worked in problems if worked.problem.task == kind]
            given = {index: ids for index, worked in enumerate(members) if (ids := self._prompt(worked, way))}
            if not given or (way == "tools" and not self.chat):
                continue
            prompts, fitting = list(given.values()), [members[index] for index in given]
            # alone: the others then find the examples, with which all begin, in the cache
            self.engine.generate(prompts[:1], Sampling(max_tokens=0))
            if way == "steps":
                results += self._steps(fitting, prompts, budgets)
            else:
                results += self._direct(fitting, prompts) if way == "direct" else self._tools(fitting)
        _score_pairs(results, pair_of)
        return results

    def _direct(self, problems: Sequence[Worked], prompts: Sequence[list[int]]) -> list[Result]:
        replies = self._answers(prompts, [[] for _ in problems], opened=self.battery.opened)
        return [
            self._result(worked, "direct", reply, 0) for worked, reply in zip(problems, replies, strict=True)
        ]

    def _steps(
        self, problems: Sequence[Worked], prompts: Sequence[list[int]], budgets: Sequence[int]
    ) -> list[Result]:
        thoughts = self._think(prompts, max(budgets))
        results = []
        for budget in budgets:
            cut = [thought[:budget] for thought in thoughts]
            replies = self._answers(prompts, cut)
            results += [
                self._result(worked, "steps", reply, len(thought), budget)
                for worked, thought, reply in zip(problems, cut, replies, strict=True)
            ]
        return results

    def _think(self, prompts: Sequence[list[int]], budget: int) -> list[list[int]]:
        """The model's tokens before it answers or ends, greedily, as far as there is room."""
        reserved = self.battery.answer_tokens + len(self._opening(True))
        requests = []
        for prompt in prompts:
            most = min(budget, self.engine.context - len(prompt) - reserved)
            sampling = Sampling(temperature=0.0, max_tokens=most, stop=(ANSWER,))
            requests.append(self.engine.request(prompt, sampling))
        tokens: dict[int, list[int]] = {request.id: [] for request in requests}
        for output in self.engine.run(requests):
            tokens[output.request.id] += [token.id for token in output.tokens]
        return [self._without_answer(ids) for ids in tokens.values()]

    def _without_answer(self, ids: list[int]) -> list[int]:
        """The tokens before the word that opens the answer."""
        decode = self.engine.tokenizer.decode
        start = decode(ids).find(ANSWER)
        while start >= 0 and len(decode(ids)) > start:
            ids = ids[:-1]
        return ids

    def _opening(self, after_text: bool) -> list[int]:
        return self.engine.tokenizer.encode(f"\n{ANSWER}" if after_text else ANSWER)

    def _answers(
        self, prompts: Sequence[list[int]], thoughts: Sequence[Sequence[int]], *, opened: bool = True
    ) -> list[str]:
        """What the model says when the answer is opened behind its thoughts."""
        sampling = Sampling(temperature=0.0, max_tokens=self.battery.answer_tokens, stop=("\n",))
        openings = [self._opening(bool(thought)) if opened else [] for thought in thoughts]
        requests = [
            self.engine.request([*prompt, *thought, *opening], sampling)
            for prompt, thought, opening in zip(prompts, thoughts, openings, strict=True)
        ]
        texts = {request.id: "" for request in requests}
        for output in self.engine.run(requests):
            texts[output.request.id] += output.text
        decode = self.engine.tokenizer.decode
        return [
            decode([*thought, *opening]) + text
            for thought, opening, text in zip(thoughts, openings, texts.values(), strict=True)
        ]

    def _result(self, worked: Worked, way: Way, reply: str, tokens: int, budget: int | None = None) -> Result:
        battery, kind = worked.problem.task.split(".")
        group = {"kind": kind, "way": way} | ({} if budget is None else {"budget": str(budget)})
        return Result(
            task=battery,
            id=worked.problem.prompt,
            prompt=worked.problem.prompt,
            answer=worked.problem.answer,
            reply=reply.strip(),
            scores={"correct": self.battery.score(worked.problem, reply)},
            group=group,
            tokens=tokens,
        )

    def _result(
        self, worked: Worked, way: Way, reply: str | None, tokens: int, budget: int | None = None
    ) -> Result:
        battery, kind = worked.problem.task.split(".")
        group = {"kind": kind, "way": way} | ({} if budget is None else {"budget": str(budget)})
        return Result(
            task=battery,
            id=worked.problem.prompt,
            prompt=worked.problem.prompt,
            answer=worked.problem.answer,
            reply="does not fit into the context" if reply is None else reply.strip(),
            scores={"correct": self.battery.score(worked.problem, reply or "")},
            group=group,
            tokens=tokens,
        )

    # --- prompts ---

    def _question(self, worked: Worked, way: Way) -> str:
        hint = {"direct": "", "steps": "Think step by step.", "tools": "Use the functions."}[way]
        return " ".join(filter(None, (worked.problem.prompt, self.battery.form, hint)))

    def _example(self, worked: Worked, way: Way) -> list[Message]:
        bare = way == "direct" and not self.battery.opened
        answer = worked.problem.answer if bare else f"{ANSWER} {worked.problem.answer}"
        if way == "steps":
            answer = f"{worked.steps}\n{answer}".strip()
        messages = [Message("user", self._question(worked, way))]
        for call in worked.calls if way == "tools" else ():
            arguments = json.dumps(call.arguments)
            made = ToolCall(FunctionCall(call.function, arguments), id=f"call_{call.function}")
            messages += self._called("", [made], [call.result])
        return [*messages, Message("assistant", answer)]

    def _called(self, text: str, calls: Sequence[ToolCall], results: Sequence[str]) -> list[Message]:
        """The turn that calls functions, and their results."""
        if self._knows_tools:
            answers = [
                Message("tool", result, tool_call_id=call.id)
                for call, result in zip(calls, results, strict=True)
            ]
            return [Message("assistant", text, tool_calls=list(calls)), *answers]
        written = [text, *("".join(written_call(call.function)) for call in calls)]
        read = "\n".join("".join(written_result(result)) for result in results)
        return [Message("assistant", "\n".join(filter(None, written))), Message("user", read)]

    def _messages(self, worked: Worked, way: Way) -> list[Message] | None:
        """As many examples as there is room for, and the question; None if there is no room for that."""
        examples = [self._example(one, way) for one in self.examples.get(worked.problem.task, ())]
        question = Message("user", self._question(worked, way))
        for count in range(len(examples), -1, -1):
            messages = [*(message for example in examples[:count] for message in example), question]
            if self._fits(self._encode(messages, self._offered(worked, way)), way):
                return messages
        return None

    def _prompt(self, worked: Worked, way: Way) -> list[int] | None:
        messages = self._messages(worked, way)
        return None if messages is None else self._encode(messages, self._offered(worked, way))

    def _fits(self, ids: Sequence[int], way: Way) -> bool:
        return len(ids) + self._reserve(way) <= self.engine.context

    def _reserve(self, way: Way) -> int:
        """Tokens of the context that a reply needs at least."""
        thinking = {"direct": 0, "steps": 32, "tools": CALL_TOKENS}[way]
        return thinking + len(self._opening(True)) + self.battery.answer_tokens

    def _offered(self, worked: Worked, way: Way) -> list[Tool]:
        """In the way `tools`, the functions that lead to the answer."""
        used = {call.function for call in worked.calls} if way == "tools" else set()
        return [function for function in self.battery.functions if function.name in used]

    def _encode(self, messages: Sequence[Message], functions: Sequence[Tool]) -> list[int]:
        if not self.chat:
            turns = (
                f"Question: {message.content}\n" if message.role == "user" else f"{message.content}\n\n"
                for message in messages
            )
            return [*self.engine.renderer.begin, *self.engine.tokenizer.encode("".join(turns))]
        tools = [function.definition for function in functions]
        if tools and not self._knows_tools:
            listed = "".join(tools_description(tools, HERMES))
            messages, tools = [Message("system", listed), *messages], []
        return self.engine.renderer.encode_chat(messages, tools=tools, add_generation_prompt=True)

    @cached_property
    def _knows_tools(self) -> bool:
        """Whether the model's chat format has a place for functions; else they are written as text."""
        try:
            self.engine.renderer.encode_chat([Message("user", "?")], tools=[Definition(name="probe")])
        except BadInput:
            return False
        return True

    # --- functions ---

    def _tools(self, problems: Sequence[Worked]) -> list[Result]:
        talks = [_Talk(worked, self._messages(worked, "tools")) for worked in problems]
        for number in range(ROUNDS):
            open_talks = [talk for talk in talks if talk.messages is not None and talk.reply is None]
            prompts = [
                self._encode(talk.messages or [], self._offered(talk.worked, "tools")) for talk in open_talks
            ]
            requests = [
                self.engine.request(prompt, self._reply_with_calls(talk.worked, must_call=not number))
                for talk, prompt in zip(open_talks, prompts, strict=True)
            ]
            texts, counts = {request.id: "" for request in requests}, {request.id: 0 for request in requests}
            for output in self.engine.run(requests):
                texts[output.request.id] += output.text
                counts[output.request.id] += len(output.tokens)
            for talk, request in zip(open_talks, requests, strict=True):
                talk.tokens += counts[request.id]
                self._go_on(talk, texts[request.id], must_call=not number)
        unanswered = [
            talk for talk in talks if talk.messages is not None and ANSWER not in (talk.reply or "")
        ]
        prompts = [
            self._encode(talk.messages or [], self._offered(talk.worked, "tools")) for talk in unanswered
        ]
        thoughts = [self.engine.tokenizer.encode(talk.reply or "") for talk in unanswered]
        for talk, reply in zip(unanswered, self._answers(prompts, thoughts), strict=True):
            talk.reply = reply
        return [
            self._result(talk.worked, "tools", talk.reply, talk.tokens)
            for talk in talks
            if talk.reply is not None
        ]

    def _reply_with_calls(self, worked: Worked, *, must_call: bool) -> Sampling:
        tools = [function.definition for function in self._offered(worked, "tools")]
        schema = json.dumps(call_schema(tools)) if must_call else None
        return Sampling(temperature=0.0, max_tokens=CALL_TOKENS, stop=(RESPONSE_START,), schema=schema)

    def _go_on(self, talk: "_Talk", text: str, *, must_call: bool) -> None:
        """Run the calls of a reply and let the model read their results, or end the talk with it."""
        functions = self._offered(talk.worked, "tools")
        reader = CallReader([function.definition for function in functions], must_call=must_call)
        pieces = list(reader.read(text, final=True))
        calls = [piece for piece in pieces if isinstance(piece, ToolCall)]
        said = "".join(piece for piece in pieces if isinstance(piece, str)).strip()
        if not calls or talk.messages is None:
            talk.reply = said
            return
        episode = Episode(talk.messages, functions)
        results = [episode.make(call).text.shown for call in calls]
        messages = [*talk.messages, *self._called(said, calls, results)]
        fits = self._fits(self._encode(messages, functions), "tools")
        talk.messages = messages if fits else None


def _score_pairs(results: Sequence[Result], pair_of: Mapping[str, str]) -> None:
    """Of problems that are asked in two orders: whether both are right."""
    pairs: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.id in pair_of:
            pairs.setdefault((pair_of[result.id], str(result.group)), []).append(result)
    for members in pairs.values():
        for member in members:
            member.scores["both_orders"] = min(other.scores["correct"] for other in members)


@dataclass
class _Talk:
    """A conversation with calls."""

    worked: Worked
    messages: list[Message] | None
    """None when it no longer fits into the context."""
    reply: str | None = None
    """The reply without calls."""
    tokens: int = 0
    """Generated so far."""
