"""Continuous batching: before each step, decide who computes what (Yu et al. 2022, section 3.2; Agrawal et
al. 2023, section 4).

A step computes one token of every sequence that is being continued, and parts of new prompts, in one forward
pass. Clients take turns in being admitted. If blocks run out, the sequence that was admitted last gives its
up and is computed again later.
"""

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from crawltalk.engine.backends import SLOTS, Backend, Batch
from crawltalk.engine.blocks import BlockPool
from crawltalk.engine.sampling import Sampling, adjust, uniform
from crawltalk.engine.sequence import Event, Finish, Request, Sample, Token
from crawltalk.model.cache import BLOCK, blocks_for
from crawltalk.tokenizer import Tokenizer

STEP_TOKENS = 256
"""Rows of a step, at most, but for one of each sequence that is being continued."""
PREFILL_TOKENS = 64
"""Rows of a step that new prompts get in any case."""
News = tuple[Request, Event]


class Scheduler:
    """Requests in, events out, step by step."""

    def __init__(self, backend: Backend, tokenizer: Tokenizer, context: int) -> None:
        self.backend, self.tokenizer, self.context = backend, tokenizer, context
        self.pool = BlockPool(backend.blocks)
        self.waiting: dict[str, deque[Sample]] = {}
        """By client; the client whose turn it is stands first."""
        self.running: list[Sample] = []
        """In the order in which they were admitted."""
        self.counts = dict.fromkeys(
            ("prompt_tokens", "cached_tokens", "generated_tokens", "steps", "preempted", "cancelled"), 0
        )
        self._slots = list(range(SLOTS))

    def submit(self, request: Request) -> None:
        """Queue a request."""
        queue = self.waiting.setdefault(request.client, deque())
        queue.extend(Sample.of(request, number) for number in range(request.samples))

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.running or self.waiting)

    @torch.inference_mode()
    def step(self) -> list[News]:
        """Compute one step; what became of it."""
        news = self.drop_cancelled()
        self._admit()
        plan = self._plan()
        if plan:
            logits, rows = self._compute(plan)
            news += self._advance(plan, logits, rows)
            self.counts["steps"] += 1
        return news

    @torch.inference_mode()
    def read(self, tokens: Sequence[int], compute: Callable[[Batch], Tensor]) -> Tensor:
        """What the backend computes (`forward` or `states`) at each token of a text, [T, ..] fp32."""
        if not self._slots:
            self._preempt(self.running[-1])
        sample = Sample.of(Request(list(tokens), Sampling(), frozenset(), echo=True), 0)
        self._start(sample)
        self.running.insert(0, self.running.pop())  # it is not to make room for itself
        try:
            self._reserve(sample, len(tokens), {})
            rows = np.arange(len(tokens), dtype=np.int32)
            return (
                compute(Batch(np.array(tokens, np.int32), rows, np.full_like(rows, sample.slot), rows))
                .float()
                .cpu()
            )
        finally:
            self._release(sample)

    def drop_cancelled(self) -> list[News]:
        """Forget what nobody waits for any more."""
        queues = self.waiting.values()
        gone = [
            sample
            for sample in (*self.running, *(one for queue in queues for one in queue))
            if sample.request.cancelled
        ]
        if gone:
            self.waiting = {
                client: kept
                for client, queue in self.waiting.items()
                if (kept := deque(sample for sample in queue if not sample.request.cancelled))
            }
        return [self._end(sample, "cancelled") for sample in gone]

    def _admit(self) -> None:
        """Clients take turns. A further sample of a prompt waits until the first has computed it."""
        skipped = 0
        while self.waiting and self._slots and skipped < len(self.waiting):
            client = next(iter(self.waiting))
            queue = self.waiting.pop(client)
            sample = queue[0]
            request = sample.request
            unready = any(
                one.request is request and one.is_first and one.computed < len(request.prompt)
                for one in self.running
            )
            room = not self.running or blocks_for(len(sample.tokens) + 1) <= self.pool.blocks - self.pool.used
            if unready or not room:
                skipped += 1
            else:
                skipped = 0
                queue.popleft()
                self._start(sample)
            if queue:
                self.waiting[client] = queue

    def _start(self, sample: Sample) -> None:
        request = sample.request
        sample.slot = self._slots.pop()
        if not sample.hears:  # the logits of a prompt's tokens are not in the cache
            sample.blocks, sample.content = self.pool.find(sample.tokens)
        sample.computed = len(sample.blocks) * BLOCK
        self.backend.tables[sample.slot, : len(sample.blocks)] = sample.blocks
        if not sample.said:
            request.cached_tokens = max(request.cached_tokens, sample.computed)
            self.counts["prompt_tokens"] += len(request.prompt)
            self.counts["cached_tokens"] += sample.computed
        self.running.append(sample)

    def _plan(self) -> dict[Sample, int]:
        """Sample -> rows, those that are being continued first."""
        plan: dict[Sample, int] = {}
        going = [sample for sample in self.running if sample.computed == len(sample.tokens) - 1]
        room = max(PREFILL_TOKENS, STEP_TOKENS - len(going))
        begun = [sample for sample in self.running if sample.computed < len(sample.tokens) - 1]
        for sample in going:
            if sample.slot >= 0 and self._reserve(sample, 1, plan):
                plan[sample] = 1
        for sample in begun:
            rows = min(len(sample.tokens) - sample.computed, room)
            if sample.slot >= 0 and rows and self._reserve(sample, rows, plan):
                plan[sample] = rows
                room -= rows
        return plan

    def _reserve(self, sample: Sample, rows: int, plan: dict[Sample, int]) -> bool:
        """Own the blocks for so many more tokens; the sequence that was admitted last makes room, which may
        be this one.
        """
        while len(sample.blocks) < blocks_for(sample.computed + rows):
            block = self.pool.take()
            if block is not None:
                self.backend.tables[sample.slot, len(sample.blocks)] = block
                sample.blocks.append(block)
                continue
            victim = self.running[-1]
            plan.pop(victim, None)
            self._preempt(victim)
            if victim is sample:
                return False
        return True

    def _preempt(self, victim: Sample) -> None:
        self._release(victim)
        self.waiting.setdefault(victim.request.client, deque()).appendleft(victim)
        self.counts["preempted"] += 1

    def _release(self, sample: Sample) -> None:
        if sample.slot < 0:
            return
        self.running.remove(sample)
        self.pool.let_go(sample.blocks)
        self._slots.append(sample.slot)
        sample.slot, sample.blocks, sample.computed, sample.content = -1, [], 0, 0

    def _compute(self, plan: dict[Sample, int]) -> tuple[Tensor, dict[Sample, tuple[int, int]]]:
        """Logits, and which rows of them belong to whom."""
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        wanted: list[int] = []
        rows: dict[Sample, tuple[int, int]] = {}
        for sample, count in plan.items():
            start, end = sample.computed, sample.computed + count
            tokens += sample.tokens[start:end]
            positions += range(start, end)
            slots += [sample.slot] * count
            first = len(wanted)
            if sample.hears and start < len(sample.request.prompt):
                wanted += range(len(tokens) - count, len(tokens))
            elif end == len(sample.tokens):
                wanted.append(len(tokens) - 1)
            rows[sample] = first, len(wanted)
        arrays = (np.array(values, dtype=np.int32) for values in (tokens, positions, slots, wanted))
        return self.backend.forward(Batch(*arrays)), rows

    def _advance(
        self, plan: dict[Sample, int], logits: Tensor, rows: dict[Sample, tuple[int, int]]
    ) -> list[News]:
        """Take note of what was computed, and say the next tokens."""
        speaking: list[Sample] = []
        news: list[News] = []
        for sample, count in plan.items():
            self._computed(sample, count)
            if sample.hears and sample.said == 0:
                self._hear(sample, logits[slice(*rows[sample])])
            if sample.computed == len(sample.tokens):
                if sample.request.sampling.max_tokens:
                    speaking.append(sample)
                else:
                    news.append(self._end(sample, "length"))
        if not speaking:
            return news
        places = [rows[sample][1] - 1 for sample in speaking]
        last = logits if places == list(range(len(logits))) else logits[places]
        noted = {
            row: torch.log_softmax(last[row], dim=-1)
            for row, sample in enumerate(speaking)
            if sample.request.sampling.logprobs is not None
        }
        for row, sample in enumerate(speaking):
            if sample.request.sampling.adjusts:
                adjust(last[row], sample.request.sampling, sample.request.prompt, sample.reply)
            if sample.constraint is not None:
                sample.constraint.forbid(last[row])
        samplings = [sample.request.sampling for sample in speaking]
        points = [
            uniform(sample.request.sampling.seed, sample.number, sample.said)
            if sample.request.sampling.temperature
            else 0.0
            for sample in speaking
        ]
        chosen = self.backend.choose(last, samplings, points)
        self.counts["generated_tokens"] += len(chosen)
        return news + [
            self._say(sample, token, noted.get(row))
            for row, (sample, token) in enumerate(zip(speaking, chosen, strict=True))
        ]

    def _computed(self, sample: Sample, count: int) -> None:
        """Blocks that are full now can be found by others."""
        full, sample.computed = sample.computed // BLOCK, sample.computed + count
        for number in range(full, sample.computed // BLOCK):
            tokens = sample.tokens[number * BLOCK : (number + 1) * BLOCK]
            sample.content = self.pool.remember(sample.blocks[number], sample.content, tokens)

    def _hear(self, sample: Sample, logits_TV: Tensor) -> None:
        """Note what the model thought of the prompt's tokens."""
        request = sample.request
        start = sample.computed - len(logits_TV)
        if start == 0:
            first = request.prompt[0]
            request.prompt_tokens = (Token(first, self.tokenizer.word(first), None, ()),)
        following = request.prompt[start + 1 : sample.computed + 1]
        found = torch.log_softmax(logits_TV[: len(following)], dim=-1)
        request.prompt_tokens += tuple(
            self._token(token, row, request.sampling.logprobs)
            for token, row in zip(following, found, strict=True)
        )

    def _token(self, token: int, logprobs_V: Tensor | None, likeliest: int | None) -> Token:
        word = self.tokenizer.word(token)
        if logprobs_V is None:
            return Token(token, word, None, ())
        found = logprobs_V.topk(min(likeliest or 0, len(logprobs_V)))
        top = tuple(zip(found.indices.tolist(), found.values.tolist(), strict=True))
        return Token(token, word, float(logprobs_V[token]), top)

    def _say(self, sample: Sample, token: int, logprobs_V: Tensor | None) -> News:
        request = sample.request
        if token in request.stop_ids:
            return self._end(sample, "stop")
        sample.tokens.append(token)
        said = self._token(token, logprobs_V, request.sampling.logprobs)
        text = sample.text.add(said.text)
        complete = sample.constraint is not None and sample.constraint.take(token)
        if complete or sample.text.stopped:
            return self._end(sample, "stop", text, (said,))
        if sample.said >= request.sampling.max_tokens or len(sample.tokens) > self.context:
            return self._end(sample, "length", text, (said,))
        return request, Event(sample.number - request.first_sample, text, (said,), None)

    def _end(self, sample: Sample, finish: Finish, text: str = "", tokens: Sequence[Token] = ()) -> News:
        self._release(sample)
        self.counts["cancelled"] += finish == "cancelled"
        text += "" if sample.text.stopped else sample.text.add(b"", final=True)
        return sample.request, Event(sample.number - sample.request.first_sample, text, tuple(tokens), finish)
