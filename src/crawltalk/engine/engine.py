"""Prefill, then one token per step and row, with a key/value cache."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from crawltalk.core.errors import BadInput
from crawltalk.core.types import Message
from crawltalk.engine.sampling import Sampling, choose
from crawltalk.model.cache import KVCache
from crawltalk.model.hf import load_model
from crawltalk.model.transformer import Transformer
from crawltalk.tokenizer import Tokenizer

BATCH = 32
"""Rows that are decoded together."""
REPLY_ROOM = 4
"""A prompt may fill the context up to one part in four, which is left for the reply."""


class Engine:
    """A model and its tokenizer, ready to talk."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> "Engine":
        """From a folder in Hugging Face's layout. Raises MissingInput or BadInput."""
        return cls(load_model(folder, device=device, dtype=dtype), Tokenizer.load(folder))

    @property
    def context(self) -> int:
        """Longest sequence, prompt and reply together, in tokens."""
        return self.model.shape.context

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        stop: frozenset[int] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[list[int]]:
        """The continuation of each prompt, without the stop token. `progress` gets the number of finished prompts.

        Rows are decoded in batches of similar length; row i draws from the generator (seed, i), so the result does not
        depend on the batches. A prompt that is too long loses its oldest tokens.
        """
        stop = self.tokenizer.stop_ids if stop is None else stop
        replies: list[list[int]] = [[] for _ in prompts]
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            for place, token in self._decode([prompts[row] for row in rows], rows, sampling, stop):
                replies[rows[place]].append(token)
            if progress is not None:
                progress(start + len(rows))
        return replies

    def stream(self, prompt: Sequence[int], sampling: Sampling, stop: frozenset[int] | None = None) -> Iterator[int]:
        """The continuation of one prompt, token by token."""
        for _, token in self._decode([prompt], [0], sampling, self.tokenizer.stop_ids if stop is None else stop):
            yield token

    @torch.inference_mode()
    def probabilities(self, prompt: Sequence[int], reply: Sequence[int]) -> list[float]:
        """What probability the model gives to each token of `reply` after `prompt`."""
        device = self.model.embedding.weight.device
        tokens = torch.tensor([[*prompt, *reply]], device=device)
        states = self.model.states(tokens[:, :-1])[0, len(prompt) - 1 :]
        p_TV = torch.softmax(self.model.logits(states).float(), dim=-1)
        return p_TV.gather(1, tokens[0, len(prompt) :, None])[:, 0].tolist()

    def reply(self, messages: Sequence[Message], sampling: Sampling) -> str:
        """The assistant's reply to a conversation."""
        return "".join(self.stream_reply(messages, sampling))

    def stream_reply(self, messages: Sequence[Message], sampling: Sampling) -> Iterator[str]:
        """The reply in pieces of whole characters."""
        return self.tokenizer.decode_stream(self.stream(self.prompt(messages)[0], sampling))

    def prompt(self, messages: Sequence[Message]) -> tuple[list[int], int]:
        """A conversation with the assistant's turn opened, and how many of its oldest turns were left out to make it fit.

        A system message at the front stays. Raises BadInput if the last message alone is too long.
        """
        system = [message for message in messages[:1] if message.role == "system"]
        turns = list(messages[len(system) :])
        room = self.context - max(1, self.context // REPLY_ROOM)
        dropped = 0
        ids, _ = self.tokenizer.render([*system, *turns], reply=True)
        while len(ids) > room and dropped < len(turns) - 1:
            dropped += 1
            ids, _ = self.tokenizer.render([*system, *turns[dropped:]], reply=True)
        if len(ids) <= room:
            return ids, dropped
        raise BadInput(
            f"the message has {len(ids)} tokens; this model has room for {room} of {self.context}: make it shorter"
        )

    @torch.inference_mode()
    def _decode(
        self, prompts: Sequence[Sequence[int]], names: Sequence[int], sampling: Sampling, stop: frozenset[int]
    ) -> Iterator[tuple[int, int]]:
        """(row, token) as they come; rows leave the batch when they are finished."""
        device = self.model.embedding.weight.device
        keep = self.context - 1
        prompts = [list(prompt)[-keep:] or [self.tokenizer.eot] for prompt in prompts]
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        longest = int(lengths.max())
        capacity = min(self.context, longest + sampling.max_tokens)
        cache = KVCache(self.model.shape, len(prompts), capacity, device=device, dtype=self.model.embedding.weight.dtype)
        padded = torch.tensor([[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts], device=device)
        states = self.model.states(padded, cache)
        cache.advance(lengths)
        last = states[torch.arange(len(prompts), device=device), lengths - 1]
        generators = [torch.Generator().manual_seed(sampling.seed * 1_000_003 + name) for name in names]
        alive = list(range(len(prompts)))
        for step in range(sampling.max_tokens):
            tokens = choose(self.model.logits(last), sampling, [generators[row] for row in alive])
            chosen = tokens.tolist()
            full = cache.lengths_B.tolist()
            going = []
            for place, (row, token) in enumerate(zip(alive, chosen, strict=True)):
                if token not in stop:
                    yield row, token
                    if full[place] < self.context:
                        going.append(place)
            if not going or step == sampling.max_tokens - 1:
                return
            if len(going) < len(alive):
                places = torch.tensor(going, device=device)
                cache.keep(places)
                tokens = tokens[places]
                alive = [alive[place] for place in going]
            last = self.model.states(tokens[:, None], cache)[:, -1]
            cache.advance(1)
