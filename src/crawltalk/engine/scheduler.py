"""Continuous batching: before each step, decide which tokens it computes (Yu et al. 2022, section 3.2; Agrawal et
al. 2023, section 4).

A step decodes one token of every running sequence whose prompt is computed, and prefills parts of new
prompts, in one forward pass. Clients take turns in being admitted. If blocks run out, the sequence that was
admitted last is preempted: it gives its blocks up and is computed again later.
"""

from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from crawltalk.engine.backends import MAX_NUM_SEQS, Backend, Batch, Continuation
from crawltalk.engine.blocks import BlockPool
from crawltalk.engine.sampling import Sampling, apply_penalties, uniform
from crawltalk.engine.sequence import FinishReason, Request, Sequence, StepOutput, Token
from crawltalk.model.cache import BLOCK_SIZE, blocks_for
from crawltalk.tokenizer import Tokenizer

MAX_NUM_BATCHED_TOKENS = 256
"""Rows of a step, at most; each sequence that decodes still gets its one."""
_MIN_PREFILL_TOKENS = 64
"""Rows of a step that prefills may use, however many sequences decode."""


class Scheduler:
    """Requests in, outputs out, step by step."""

    def __init__(self, backend: Backend, tokenizer: Tokenizer, context: int) -> None:
        self.backend, self.tokenizer, self.context = backend, tokenizer, context
        self.pool = BlockPool(backend.num_blocks)
        self.waiting: dict[str, deque[Sequence]] = {}
        """By client; the client whose turn it is stands first."""
        self.running: list[Sequence] = []
        """In the order in which they were admitted."""
        self.counts = dict.fromkeys(
            ("prompt_tokens", "cached_tokens", "generated_tokens", "steps", "preempted", "cancelled"), 0
        )
        self._slots = list(range(MAX_NUM_SEQS))

    def add(self, request: Request) -> None:
        """Let a request wait for its turn."""
        queue = self.waiting.setdefault(request.client, deque())
        queue.extend(Sequence.of(request, index) for index in range(request.samples))

    @property
    def busy(self) -> bool:
        """Whether any sequence runs or waits."""
        return bool(self.running or self.waiting)

    @torch.inference_mode()
    def step(self, most: int = 1) -> list[StepOutput]:
        """Run one step: admit, compute, sample. Returns the outputs of all sequences that went on. While there are no
        prompts to compute, each sequence gets up to `most` tokens.
        """
        outputs = self.drop_cancelled()
        self._admit()
        plan = self._schedule(most)
        if limits := self._limits(plan, most):
            outputs += self._continue(limits)
        elif plan:
            logits, logits_rows = self._forward(plan)
            outputs += self._process(plan, logits, logits_rows)
            self.counts["steps"] += 1
        return outputs

    @torch.inference_mode()
    def prefill(self, tokens: SequenceOf[int], compute: Callable[[Batch], Tensor]) -> Tensor:
        """What the backend computes (`forward` or `states`) at each token of a text, [T, ..] fp32."""
        if not self._slots:
            self._preempt(self.running[-1])
        sequence = Sequence.of(Request(list(tokens), Sampling(), frozenset(), prompt_logprobs=True), 0)
        self._start(sequence)
        self.running.insert(0, self.running.pop())  # so that it is not preempted for its own blocks
        try:
            self._allocate(sequence, len(tokens), {})
            rows = np.arange(len(tokens), dtype=np.int32)
            batch = Batch(np.array(tokens, np.int32), rows, np.full_like(rows, sequence.slot), rows)
            return compute(batch).float().cpu()
        finally:
            self._free(sequence)

    def drop_cancelled(self) -> list[StepOutput]:
        """End the sequences of cancelled requests."""
        waiting = (sequence for queue in self.waiting.values() for sequence in queue)
        cancelled = [sequence for sequence in (*self.running, *waiting) if sequence.request.cancelled]
        if cancelled:
            self.waiting = {
                client: kept
                for client, queue in self.waiting.items()
                if (kept := deque(sequence for sequence in queue if not sequence.request.cancelled))
            }
        return [self._finish(sequence, "cancelled") for sequence in cancelled]

    def weights_changed(self) -> None:
        """Use nothing that earlier weights computed: cached prefixes are no longer matched, and running
        sequences are preempted: they continue after their tokens are computed again.
        """
        while self.running:
            self._preempt(self.running[-1])
        self.pool.forget()

    def _admit(self) -> None:
        """Clients take turns. A further sequence of a prompt waits until the first has computed it, and lets other
        prompts pass.
        """
        computing = {one.request for one in self.running if one.index == 0 and not one.has_prompt}
        held: dict[str, list[Sequence]] = {}
        skipped = 0
        while self.waiting and self._slots and skipped < len(self.waiting):
            client = next(iter(self.waiting))
            queue = self.waiting.pop(client)
            while queue and queue[0].request in computing:
                held.setdefault(client, []).append(queue.popleft())
            if not queue:
                continue
            num_free = self.pool.num_blocks - self.pool.num_used
            if self.running and blocks_for(len(queue[0].tokens) + 1) > num_free:
                skipped += 1
            else:
                skipped = 0
                sequence = queue.popleft()
                self._start(sequence)
                if sequence.index == 0 and not sequence.has_prompt:
                    computing.add(sequence.request)
            if queue:
                self.waiting[client] = queue
        for client, sequences in held.items():
            self.waiting.setdefault(client, deque()).extendleft(reversed(sequences))

    def _start(self, sequence: Sequence) -> None:
        request = sequence.request
        sequence.slot = self._slots.pop()
        cached = sequence.num_full_blocks
        if sequence.prompt_logprobs:  # the logits of a prompt's tokens are not in the cache
            cached = min(cached, max(0, request.logprobs_from - 1) // BLOCK_SIZE)
            if not sequence.num_generated:
                request.prompt_tokens = ()
        contents = map(sequence.block_content, range(cached))
        sequence.blocks, sequence.prefix = self.pool.match_prefix(contents)
        sequence.num_computed_tokens = len(sequence.blocks) * BLOCK_SIZE
        if not sequence.num_generated:
            request.cached_tokens = max(request.cached_tokens, sequence.num_computed_tokens)
            self.counts["prompt_tokens"] += len(request.prompt)
            self.counts["cached_tokens"] += sequence.num_computed_tokens
            self._copy_last_block(sequence)
        self.backend.block_tables[sequence.slot, : len(sequence.blocks)] = sequence.blocks
        self.running.append(sequence)

    def _copy_last_block(self, sequence: Sequence) -> None:
        """Of a prompt that the first sequence of its request has computed, the end, which fills no block: each
        sequence writes on in a copy of its own.
        """
        first = next(
            (one for one in self.running if one.request is sequence.request and one.index == 0), None
        )
        last, number = len(sequence.request.prompt) - 1, len(sequence.blocks)
        if (
            first is None
            or first.num_computed_tokens <= last
            or number != last // BLOCK_SIZE
            or last % BLOCK_SIZE == 0
        ):
            return
        block = self.pool.allocate()
        if block is not None:
            self.backend.copy_block(first.blocks[number], block)
            sequence.blocks.append(block)
            sequence.num_computed_tokens = last

    def _schedule(self, most: int) -> dict[Sequence, int]:
        """Sequence -> rows of the next step, those that decode first. Where sequences may get several tokens at once,
        those wait until all prompts are computed.
        """
        plan: dict[Sequence, int] = {}
        decodes: list[Sequence] = []
        prefills: list[Sequence] = []
        for sequence in self.running:
            (decodes if sequence.decodes else prefills).append(sequence)
        if prefills and most > 1:
            decodes = []
        room = max(_MIN_PREFILL_TOKENS, MAX_NUM_BATCHED_TOKENS - len(decodes))
        for sequence in decodes:
            if sequence.slot >= 0 and self._allocate(sequence, 1, plan):
                plan[sequence] = 1
        for sequence in prefills:
            # a prompt that is only scored may have a token more than the model reads: nothing follows that one
            rows = min(min(len(sequence.tokens), self.context) - sequence.num_computed_tokens, room)
            if sequence.slot >= 0 and rows and self._allocate(sequence, rows, plan):
                plan[sequence] = rows
                room -= rows
        return plan

    def _limits(self, plan: dict[Sequence, int], most: int) -> dict[Sequence, int]:
        """Sequence -> tokens that it may draw before the next plan, with blocks for them; empty if the backend has to
        return after each, as there is more to do.
        """
        stop_ids = next((sequence.request.stop_ids for sequence in plan), None)
        limits, blocks = dict[Sequence, int](), 0
        for sequence in plan if most > 1 else ():
            limits[sequence] = min(most, self._left(sequence))
            blocks += blocks_for(sequence.num_computed_tokens + limits[sequence]) - len(sequence.blocks)
            if not sequence.is_plain or not limits[sequence] or sequence.request.stop_ids != stop_ids:
                return {}
        if blocks > self.pool.num_blocks - self.pool.num_used:
            return {}
        for sequence, limit in limits.items():
            self._allocate(sequence, limit, plan)
        return limits

    def _allocate(self, sequence: Sequence, rows: int, plan: dict[Sequence, int]) -> bool:
        """Own the blocks for so many more tokens. If there are too few, the sequence that was admitted last
        is preempted; False if that is this one.
        """
        while len(sequence.blocks) < blocks_for(sequence.num_computed_tokens + rows):
            block = self.pool.allocate()
            if block is not None:
                self.backend.block_tables[sequence.slot, len(sequence.blocks)] = block
                sequence.blocks.append(block)
                continue
            victim = self.running[-1]
            plan.pop(victim, None)
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _preempt(self, victim: Sequence) -> None:
        self._free(victim)
        self.waiting.setdefault(victim.request.client, deque()).appendleft(victim)
        self.counts["preempted"] += 1

    def _free(self, sequence: Sequence) -> None:
        if sequence.slot < 0:
            return
        self.running.remove(sequence)
        self.pool.free(sequence.blocks)
        self._slots.append(sequence.slot)
        sequence.slot, sequence.blocks, sequence.num_computed_tokens, sequence.prefix = -1, [], 0, 0

    def _forward(self, plan: dict[Sequence, int]) -> tuple[Tensor, dict[Sequence, tuple[int, int]]]:
        """Logits, and the first and the end row of each sequence's."""
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        logits_indices: list[int] = []
        logits_rows: dict[Sequence, tuple[int, int]] = {}
        embedded_rows: list[int] = []
        embeddings: list[np.ndarray] = []
        for sequence, count in plan.items():
            start, end = sequence.num_computed_tokens, sequence.num_computed_tokens + count
            tokens += sequence.tokens[start:end]
            positions += range(start, end)
            slots += [sequence.slot] * count
            first = len(logits_indices)
            if sequence.prompt_logprobs and start < len(sequence.request.prompt):
                scored = end - max(start, sequence.request.logprobs_from - 1)
                logits_indices += range(len(tokens) - max(0, scored), len(tokens))
            elif end == len(sequence.tokens):
                logits_indices.append(len(tokens) - 1)
            logits_rows[sequence] = first, len(logits_indices)
            for one in sequence.request.embeddings:
                low, high = max(start, one.start), min(end, one.end)
                if low < high:
                    embedded_rows += range(len(tokens) - end + low, len(tokens) - end + high)
                    embeddings.append(one.vectors[low - one.start : high - one.start])
        arrays = (np.array(values, dtype=np.int32) for values in (tokens, positions, slots, logits_indices))
        batch = Batch(*arrays)
        if embeddings:
            rows = np.array(embedded_rows, np.int32)
            vectors = np.ascontiguousarray(np.concatenate(embeddings))  # of columns, if those given were
            batch = batch._replace(embedded_rows=rows, embeddings=vectors)
        return self.backend.forward(batch), logits_rows

    def _continue(self, limits: dict[Sequence, int]) -> list[StepOutput]:
        """Decode sequences that need nothing else, up to their limits."""
        sequences = list(limits)
        samplings = [sequence.request.sampling for sequence in sequences]
        tokens, positions, slots, drawn = (
            np.array(values, np.int32)
            for values in zip(
                *((one.tokens[-1], len(one.tokens) - 1, one.slot, one.num_generated) for one in sequences),
                strict=True,
            )
        )
        continuation = Continuation(
            samplings,
            [sequence.request.row + sequence.index for sequence in sequences],
            drawn,
            np.array(list(limits.values()), np.int32),
            sequences[0].request.stop_ids,
            any(sampling.logprobs is not None for sampling in samplings),
        )
        rows = np.arange(len(sequences), dtype=np.int32)
        found = self.backend.decode(Batch(tokens, positions, slots, rows), continuation)
        self.counts["generated_tokens"] += int(found.counts.sum())
        self.counts["steps"] += int(found.counts.max())
        return [
            self._extend(
                sequence,
                found.tokens[row, :count].tolist(),
                None if found.log_probs is None else found.log_probs[row, :count].tolist(),
            )
            for row, (sequence, count) in enumerate(zip(sequences, found.counts.tolist(), strict=True))
        ]

    def _extend(self, sequence: Sequence, ids: list[int], log_probs: list[float] | None) -> StepOutput:
        """Update a sequence that the backend has continued by these tokens."""
        request = sequence.request
        each = repeat(None) if log_probs is None or request.sampling.logprobs is None else log_probs
        words = list(map(self.tokenizer.word, ids))
        tokens = tuple(map(Token, ids, words, each, repeat(())))
        stop_token = tokens[-1] if ids[-1] in request.stop_ids else None
        kept = len(ids) - (stop_token is not None)
        tokens = tokens[:kept]
        sequence.tokens += ids[:kept]
        self._cache_full_blocks(sequence, len(ids))
        text = sequence.detokenizer.add(b"".join(words[:kept]))
        if stop_token is not None:
            return self._finish(sequence, "stop", text, tokens)._replace(stop_token=stop_token)
        if not self._left(sequence):
            return self._finish(sequence, "length", text, tokens)
        return StepOutput(request, sequence.index, text, tokens, None)

    def _process(
        self, plan: dict[Sequence, int], logits: Tensor, logits_rows: dict[Sequence, tuple[int, int]]
    ) -> list[StepOutput]:
        """Update the sequences after a forward pass, and sample the next tokens."""
        ready: list[Sequence] = []
        outputs: list[StepOutput] = []
        for sequence, count in plan.items():
            self._cache_full_blocks(sequence, count)
            if sequence.prompt_logprobs and sequence.num_generated == 0:
                self._add_prompt_logprobs(sequence, logits[slice(*logits_rows[sequence])])
            if sequence.num_computed_tokens == len(sequence.tokens):
                if sequence.request.sampling.max_tokens:
                    ready.append(sequence)
                else:
                    outputs.append(self._finish(sequence, "length"))
            elif sequence.num_computed_tokens == self.context:
                outputs.append(self._finish(sequence, "length"))
        if not ready:
            return outputs
        rows = [logits_rows[sequence][1] - 1 for sequence in ready]
        last = logits if rows == list(range(len(logits))) else logits[rows]
        wanted = [row for row, sequence in enumerate(ready) if sequence.request.sampling.logprobs is not None]
        plain = last[wanted] if wanted else None  # a copy, as what follows changes logits
        for row, sequence in enumerate(ready):
            request = sequence.request
            if request.sampling.has_penalties:
                apply_penalties(last[row], request.sampling, request.prompt, sequence.generated)
            if sequence.constraint is not None:
                sequence.constraint.mask(last[row], self._left(sequence) if request.sampling.whole else None)
        samplings = [sequence.request.sampling for sequence in ready]
        draws = [
            uniform(sampling.seed, sequence.request.row + sequence.index, sequence.num_generated)
            if sampling.temperature
            else 0.0
            for sampling, sequence in zip(samplings, ready, strict=True)
        ]
        sampled = self.backend.sample(last, samplings, draws)
        self.counts["generated_tokens"] += len(sampled)
        tokens = [self._token(token) for token in sampled]
        if plain is not None:
            drawn = [sampled[row] for row in wanted]
            for row, logits_V, logprob in zip(
                wanted, plain, self.backend.log_probs(plain, drawn), strict=True
            ):
                top = self._likeliest(logits_V, samplings[row].logprobs)
                tokens[row] = tokens[row]._replace(logprob=logprob, top=top)
        return outputs + [
            self._append(sequence, token) for sequence, token in zip(ready, tokens, strict=True)
        ]

    def _cache_full_blocks(self, sequence: Sequence, count: int) -> None:
        """Let other sequences match the blocks that became full with the last `count` tokens."""
        full = sequence.num_computed_tokens // BLOCK_SIZE
        sequence.num_computed_tokens += count
        for index in range(full, sequence.num_computed_tokens // BLOCK_SIZE):
            content = sequence.block_content(index)
            sequence.prefix = self.pool.cache_block(sequence.blocks[index], sequence.prefix, content)

    def _add_prompt_logprobs(self, sequence: Sequence, logits_TV: Tensor) -> None:
        request = sequence.request
        start = sequence.num_computed_tokens - len(logits_TV)
        if start == request.logprobs_from == 0:
            request.prompt_tokens = (self._token(request.prompt[0]),)
        following = request.prompt[start + 1 : sequence.num_computed_tokens + 1]
        logits_TV = logits_TV[: len(following)]
        request.prompt_tokens += tuple(
            self._token(token, logprob, self._likeliest(logits_V, request.sampling.logprobs))
            for token, logprob, logits_V in zip(
                following, self.backend.log_probs(logits_TV, following), logits_TV, strict=True
            )
        )

    def _token(
        self, token: int, logprob: float | None = None, top: tuple[tuple[int, float], ...] = ()
    ) -> Token:
        return Token(token, self.tokenizer.word(token), logprob, top)

    @staticmethod
    def _likeliest(logits_V: Tensor, count: int | None) -> tuple[tuple[int, float], ...]:
        """So many tokens with their log-probabilities, likeliest first."""
        if not count:
            return ()
        likeliest = torch.log_softmax(logits_V, dim=-1).topk(min(count, len(logits_V)))
        return tuple(zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True))

    def _left(self, sequence: Sequence) -> int:
        """Tokens that it may still get."""
        most = sequence.request.sampling.max_tokens - sequence.num_generated
        return min(most, self.context + 1 - len(sequence.tokens))

    def _append(self, sequence: Sequence, token: Token) -> StepOutput:
        request = sequence.request
        if token.id in request.stop_ids:
            return self._finish(sequence, "stop")._replace(stop_token=token)
        sequence.tokens.append(token.id)
        text = sequence.detokenizer.add(token.text)
        complete = sequence.constraint is not None and sequence.constraint.accept(token.id)
        if complete or sequence.detokenizer.stopped:
            return self._finish(sequence, "stop", text, (token,))
        if sequence.num_generated >= request.sampling.max_tokens or len(sequence.tokens) > self.context:
            return self._finish(sequence, "length", text, (token,))
        return StepOutput(request, sequence.index, text, (token,), None)

    def _finish(
        self, sequence: Sequence, reason: FinishReason, text: str = "", tokens: tuple[Token, ...] = ()
    ) -> StepOutput:
        self._free(sequence)
        self.counts["cancelled"] += reason == "cancelled"
        text += "" if sequence.detokenizer.stopped else sequence.detokenizer.add(b"", final=True)
        return StepOutput(sequence.request, sequence.index, text, tokens, reason)
