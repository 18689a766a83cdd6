"""Greedy coordinate gradient: a suffix that makes a model give in, found by its gradients (Zou et al. 2023,
algorithm 1).

A step takes the gradient of the loss with respect to the one-hot vectors of the suffix, draws candidates that differ
in one token from the best ones of its position, and goes on from the candidate with the lowest loss. Candidates are
computed from the first token on that differs; keys and values of what stands before are those of the step before.
Suffixes that a tokenizer would cut otherwise are left out, since an attacker sends text.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from crawltalk.core.errors import BadInput
from crawltalk.model.branches import Branches
from crawltalk.model.transformer import Transformer
from crawltalk.redteam.defenses import highest
from crawltalk.redteam.frame import Prompt, WhiteBox
from crawltalk.redteam.targets import ROOM, prompt_ids
from crawltalk.tokenizer import Tokenizer

LENGTH, TOP, CANDIDATES, STEPS = 12, 64, 192, 60
"""Tokens of a suffix, the best replacements at each position, candidates of a step, and steps."""
TRIES = 5000
"""Random tokens that are tried for a first suffix."""
CHUNK = 32
"""Candidates that are computed from the same position on: those that differ at nearly the same one."""


class Objective(Protocol):
    """What a suffix is searched for."""

    def gradient(self, suffix: Tensor) -> Tensor:
        """The derivative of the loss with respect to the one-hot vectors of the suffix, [n, V]."""
        ...

    def of(self, suffixes: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each suffix, [B], and whether it does what it is searched for, [B]. They differ little from the
        current one, whose gradient was asked for last.
        """
        ...


class Loss(NamedTuple):
    """That a model continues `before suffix after` with `wanted`: the mean surprise at it, in nats."""

    model: Transformer
    before: Sequence[int]
    after: Sequence[int]
    wanted: Sequence[int]
    ceiling: float | None = None
    """A filter's: what the prompt surprises the model more than this is added to the loss, and keeps it from being hit
    (Jain et al. 2023, section 4.1: an adaptive attack).
    """
    others: Tensor | None = None
    """Tokens that the model reads in the place of the suffix's, [n]; -1: the suffix's own."""

    def gradient(self, suffix: Tensor) -> Tensor:
        """Through the whole sequence."""
        table, suffix = self.model.embedding.weight.detach(), self._read(suffix)
        one_hot = F.one_hot(suffix, len(table)).to(table.dtype).requires_grad_()
        tokens = self.whole(suffix[None])
        embeddings = table[tokens[0]]
        start, end = len(self.before), len(self.before) + len(suffix)
        embeddings = torch.cat((embeddings[:start], one_hot @ table, embeddings[end:]))[None]
        states = self.model.states(tokens, embeddings_BTD=embeddings)[0]
        target = torch.tensor(self.wanted)
        loss = F.cross_entropy(self.model.logits(states[-len(target) - 1 : -1]), target)
        if self.ceiling is not None:
            stop = end + len(self.after)
            logs = self.model.logits(states[: stop - 1]).log_softmax(-1)
            each = -logs.gather(1, tokens[0, 1:stop, None]).squeeze(1)
            own = -(one_hot * logs[start - 1 : end - 1]).sum(-1)
            loss = loss + F.relu(highest(torch.cat((each[: start - 1], own, each[end - 1 :]))) - self.ceiling)
        slope = torch.autograd.grad(loss, one_hot)[0]
        return slope if self.others is None else slope.masked_fill((self.others >= 0)[:, None], 0.0)

    @torch.no_grad()
    def of(self, suffixes: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        """Hit: the likeliest continuation is the wanted one, and no filter declines."""
        suffixes, current = self._read(suffixes), self._read(current)
        differs = suffixes != current
        first = torch.where(differs.any(1), differs.int().argmax(1), len(current) - 1)
        order = first.argsort()
        losses, hits = torch.empty(len(suffixes)), torch.empty(len(suffixes), dtype=torch.bool)
        shared = _Shared(self, current)
        for rows in order.split(CHUNK):
            losses[rows], hits[rows] = shared.losses(suffixes[rows], int(first[rows].min()))
        return losses, hits

    def whole(self, suffixes: Tensor) -> Tensor:
        """The sequences of suffixes, [B, T]."""
        before, rest = (
            torch.tensor(part).expand(len(suffixes), -1)
            for part in (self.before, [*self.after, *self.wanted])
        )
        return torch.cat((before, suffixes, rest), 1)

    def _read(self, suffixes: Tensor) -> Tensor:
        """As the model reads them, [.., n]."""
        return suffixes if self.others is None else torch.where(self.others < 0, suffixes, self.others)


class _Shared:
    """Keys and values of the current sequence, which candidates share up to where they differ."""

    def __init__(self, loss: Loss, current: Tensor) -> None:
        self.loss, self.stop = loss, len(loss.before) + len(current) + len(loss.after)
        tokens = loss.whole(current[None])[0, :-1]  # nothing follows the last one
        self.branches = Branches(loss.model, tokens)
        if loss.ceiling is not None:
            logits = loss.model.logits(self.branches.text[: self.stop - 1])
            self.surprises = F.cross_entropy(logits, tokens[1 : self.stop], reduction="none")
            """At each token of the prompt, from the second on."""

    def losses(self, suffixes: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """The loss of each suffix, and whether it is hit. Tokens before the first are the current ones."""
        loss, count, wanted = self.loss, len(suffixes), len(self.loss.wanted)
        filtered = loss.ceiling is not None
        seen = (
            len(loss.before) + first - filtered
        )  # the surprise of the first token needs the state before it
        tokens = loss.whole(suffixes)
        few = tokens.shape[1] - 1 - seen if filtered else wanted
        states = self.branches.states(tokens[:, seen:-1], seen, few)
        logits, target = loss.model.logits(states[:, -wanted:]), torch.tensor(loss.wanted)
        hits = (logits.argmax(-1) == target).all(1)
        losses = _each(logits, target.expand(count, -1)).mean(1)
        if loss.ceiling is not None:
            own = _each(loss.model.logits(states[:, : self.stop - 1 - seen]), tokens[:, seen + 1 : self.stop])
            most = highest(torch.cat((self.surprises[:seen].expand(count, -1), own), 1))
            losses, hits = losses + F.relu(most - loss.ceiling), hits & (most <= loss.ceiling)
        return losses, hits


def _each(logits: Tensor, targets: Tensor) -> Tensor:
    """The surprise at each target, [B, T]."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)


class Found(NamedTuple):
    """A suffix after some steps."""

    ids: Sequence[int]
    steps: int
    hit: bool
    """Whether it does what was searched for."""
    loss: float


def search(
    objective: Objective,
    start: Sequence[int],
    allowed: Sequence[int],
    keeps: Callable[[Sequence[int]], bool],
    rng: random.Random,
    *,
    steps: int = STEPS,
    candidates: int = CANDIDATES,
    top: int = TOP,
) -> Iterator[Found]:
    """The suffix after each step, from `start` on.

    `allowed`: tokens that a suffix may have; `keeps`: whether a suffix survives being sent as text.
    """
    current, generator = torch.tensor(start), torch.Generator().manual_seed(rng.getrandbits(60))
    tokens = torch.tensor(allowed)
    for step in range(1, steps + 1):
        slope = objective.gradient(current)
        best = tokens[(-slope[:, tokens]).topk(min(top, len(tokens)), dim=1).indices]
        where = torch.randint(len(current), (candidates,), generator=generator)
        which = torch.randint(best.shape[1], (candidates,), generator=generator)
        drawn = current.repeat(candidates, 1)
        drawn[torch.arange(candidates), where] = best[where, which]
        drawn = drawn.unique(dim=0)
        drawn = drawn[[keeps(row) for row in drawn.tolist()]]
        if not len(drawn):
            continue
        losses, hits = objective.of(drawn, current)
        chosen = int(torch.where(hits, losses - 1e3, losses).argmin())
        current = drawn[chosen]
        yield Found(current.tolist(), step, bool(hits[chosen]), float(losses[chosen]))


class Place:
    """The place behind a request where a suffix stands, in the prompt that a model reads."""

    def __init__(self, box: WhiteBox, prompt: Prompt) -> None:
        self.box, self.request = box, prompt.request
        self.tokenizer = box.engine.tokenizer
        self._head = self.tokenizer.encode(self.request)
        plain = prompt_ids(box.engine, prompt, ROOM)
        longer = prompt_ids(box.engine, prompt.asking(self.request + " !"), ROOM)
        same = (index for index, (a, b) in enumerate(zip(plain, longer, strict=False)) if a != b)
        cut = next(same)
        self.before, self.after = plain[:cut], plain[cut:]

    def keeps(self, suffix: Sequence[int]) -> bool:
        """Whether the text of a suffix behind the request is read as these tokens."""
        text = self.request + self.tokenizer.decode(suffix)
        return self.tokenizer.encode(text) == [*self._head, *suffix]

    def text(self, suffix: Sequence[int]) -> str:
        """The request with its suffix."""
        return self.request + self.tokenizer.decode(suffix)

    def loss(self, wanted: str) -> Loss:
        """That the reply begins so, and that the filter in front of the model, if there is one, lets it pass."""
        return Loss(self.box.model, self.before, self.after, self.tokenizer.encode(wanted), self.box.ceiling)

    def start(self, rng: random.Random, length: int = LENGTH) -> list[int]:
        """A suffix of random tokens that is read as it is. Raises BadInput if this tokenizer has none."""
        allowed, suffix = printable_tokens(self.tokenizer), []
        for _ in range(TRIES):
            longer = [*suffix, rng.choice(allowed)]
            if self.keeps(longer):
                suffix = longer
            if len(suffix) == length:
                return suffix
        raise BadInput(
            "this tokenizer reads no random suffix as it was written; leave searches and random_suffix out"
        )


def printable_tokens(tokenizer: Tokenizer) -> list[int]:
    """Ordinary tokens of printable ASCII."""
    texts = ((index, word.decode("ascii", "replace")) for word, index in tokenizer.vocab.items())
    return sorted(index for index, text in texts if text.isprintable() and text.isascii())
