"""The backend in torch: the reference, the fallback where nothing can be compiled, and the one for GPUs."""

import copy
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from crawltalk.engine.backends import Batch, Continuation, Continued, empty_block_tables, num_cache_blocks
from crawltalk.engine.sampling import Sampling, sample, uniform
from crawltalk.model.adapters import adapted_layers, merged
from crawltalk.model.cache import KVCache, blocks_for
from crawltalk.model.lora import merged_weights
from crawltalk.model.transformer import Transformer


class TorchBackend:
    """A `Backend` in the model's own precision, on its own device.

    `batch_invariant` computes each row by itself: then the last bit of a result does not depend on what else
    is in the batch.
    """

    def __init__(
        self, model: Transformer, *, batch_invariant: bool = False, cache_bytes: int | None = None
    ) -> None:
        self.batch_invariant = batch_invariant
        weight = model.embedding.weight
        # the caller may continue to train its own
        self.model = merged(model).to(weight.dtype) if any(adapted_layers(model)) else copy.deepcopy(model)
        self.num_blocks = num_cache_blocks(model.shape, weight.element_size(), cache_bytes)
        self.block_tables = empty_block_tables(model.shape)
        self._cache = KVCache(model.shape, self.num_blocks, device=weight.device, dtype=weight.dtype)

    @torch.no_grad()
    def update_weights(self, model: Transformer) -> None:
        """See `Backend.update_weights`."""
        own = dict(self.model.named_parameters())
        for name, weight in merged_weights(model):
            own[name].copy_(weight)

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Tensor:
        """See `Backend.forward`."""
        states = self.states(batch)
        rows = states.split(1) if self.batch_invariant else (states,)
        return torch.cat([self.model.logits(row) for row in rows]).float()

    @torch.inference_mode()
    def states(self, batch: Batch) -> Tensor:
        """See `Backend.states`. Sequences that decode are computed together, others each by itself."""
        weight = self.model.embedding.weight
        rows = len(batch.tokens)
        groups = list(np.arange(rows)[:, None, None]) if self.batch_invariant else _groups(batch)
        embeddings_ND = self._embeddings(batch)
        states_ND = torch.empty(rows, self.model.shape.width, device=weight.device, dtype=weight.dtype)
        for rows_BT in groups:
            starts_B = batch.positions[rows_BT[:, 0]].astype(np.int64)
            num_blocks = blocks_for(int(starts_B.max()) + rows_BT.shape[1])
            tables_BN = self.block_tables[batch.slots[rows_BT[:, 0]], :num_blocks]
            self._cache.select(torch.from_numpy(tables_BN.astype(np.int64)), torch.from_numpy(starts_B))
            tokens_BT = torch.from_numpy(batch.tokens[rows_BT].astype(np.int64)).to(weight.device)
            embeddings_BTD = None if embeddings_ND is None else embeddings_ND[torch.from_numpy(rows_BT)]
            states = self.model.states(tokens_BT, self._cache, embeddings_BTD=embeddings_BTD)
            states_ND[torch.from_numpy(rows_BT)] = states
        return states_ND[torch.from_numpy(batch.logits_indices.astype(np.int64))]

    def _embeddings(self, batch: Batch) -> Tensor | None:
        """The input embedding of every row, [rows, D]; None if all rows read tokens."""
        if batch.embeddings is None or batch.embedded_rows is None:
            return None
        weight = self.model.embedding.weight
        embeddings_ND = self.model.embedding(torch.from_numpy(batch.tokens).to(weight.device))
        vectors = torch.from_numpy(batch.embeddings).to(weight.device, weight.dtype)
        embeddings_ND[torch.from_numpy(batch.embedded_rows).to(weight.device)] = vectors
        return embeddings_ND

    def sample(self, logits_BV: Tensor, samplings: Sequence[Sampling], draws: Sequence[float]) -> list[int]:
        """See `Backend.sample`; rows of equal settings are drawn together."""
        tokens = [0] * len(draws)
        order = sorted(range(len(draws)), key=lambda row: samplings[row].filters)
        for _, group in groupby(order, key=lambda row: samplings[row].filters):
            rows = list(group)
            drawn = sample(logits_BV[rows], samplings[rows[0]], [draws[row] for row in rows])
            for row, token in zip(rows, drawn.tolist(), strict=True):
                tokens[row] = token
        return tokens

    def log_probs(self, logits_BV: Tensor, tokens: Sequence[int]) -> list[float]:
        """See `Backend.log_probs`."""
        index = torch.tensor(tokens, device=logits_BV.device)[:, None]
        return torch.log_softmax(logits_BV, dim=-1).gather(1, index)[:, 0].tolist()

    def decode(self, batch: Batch, continuation: Continuation) -> Continued:
        """See `Backend.decode`."""
        samplings, limits = continuation.samplings, continuation.limits
        tokens = np.zeros((len(limits), int(limits.max())), np.int32)
        log_probs, counts = np.zeros(tokens.shape, np.float32), np.zeros(len(limits), np.int32)
        last, going = batch.tokens.copy(), np.arange(len(limits))
        for step in range(tokens.shape[1]):
            logits_BV = self.forward(
                Batch(last[going], batch.positions[going] + step, batch.slots[going], np.arange(len(going)))
            )
            rows = going.tolist()
            draws = [
                uniform(samplings[row].seed, continuation.numbers[row], int(continuation.drawn[row]) + step)
                for row in rows
            ]
            drawn = self.sample(logits_BV, [samplings[row] for row in rows], draws)
            if continuation.log_probs:
                log_probs[going, step] = self.log_probs(logits_BV, drawn)
            tokens[going, step] = last[going] = drawn
            counts[going] += 1
            ended = np.isin(last[going], list(continuation.stop_ids)) | (counts[going] >= limits[going])
            going = going[~ended]
            if not len(going):
                break
        return Continued(tokens, log_probs if continuation.log_probs else None, counts)

    def copy_block(self, source: int, target: int) -> None:
        """See `Backend.copy_block`."""
        for pool in (self._cache.keys, self._cache.values):
            pool[:, target] = pool[:, source]


def _groups(batch: Batch) -> list[np.ndarray]:
    """Rows that are computed in one pass, [sequences, T] each."""
    firsts = np.flatnonzero(np.diff(batch.slots, prepend=-1))
    sizes = np.diff(firsts, append=len(batch.slots))
    prefills = [
        np.arange(first, first + size)[None] for first, size in zip(firsts, sizes, strict=True) if size > 1
    ]
    decodes = firsts[sizes == 1][:, None]
    return [*prefills, decodes] if len(decodes) else prefills
