"""Greedy coordinate gradient: a suffix that makes a model give in, found by its gradients (Zou et al. 2023,
algorithm 1).

A step takes the gradient of the loss with respect to the one-hot vectors of the suffix, draws candidates that differ
in one token from the best ones of its position, and goes on from the candidate with the lowest loss. Candidates are
computed from the first token on that differs; keys and values of what stands before are those of the step before.
Suffixes that a tokenizer would cut otherwise are left out, since an attacker sends text.
"""

import random
import string
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from crawltalk.core.errors import BadInput
from crawltalk.model.cache import BLOCK_SIZE, KVCache, blocks_for
from crawltalk.model.transformer import Transformer
from crawltalk.redteam.frame import Attack, Goal, Prompt, Target, WhiteBox
from crawltalk.redteam.policy import HARMLESS
from crawltalk.redteam.targets import ROOM, prompt_ids
from crawltalk.tokenizer import Tokenizer

LENGTH, TOP, CANDIDATES, STEPS = 12, 64, 192, 60
"""Tokens of a suffix, the best replacements at each position, candidates of a step, and steps."""
TRIES = 5000
"""Random tokens that are tried for a first suffix."""
CHUNK = 32
"""Candidates that are computed at once: so few that caches hold them."""
FLUENCY = 0.5
"""Nats of the loss for a nat of surprise at each token of the suffix."""


class Loss(NamedTuple):
    """What a suffix is to bring about: that a model continues `before suffix after` with `wanted`."""

    model: Transformer
    before: Sequence[int]
    after: Sequence[int]
    wanted: Sequence[int]
    fluency: float = 0.0
    """How much the mean surprise of the suffix counts beside it, in nats."""

    def gradient(self, suffix: Tensor) -> Tensor:
        """The derivative with respect to the one-hot vectors of the suffix, [n, V]."""
        table = self.model.embedding.weight.detach()
        one_hot = F.one_hot(suffix, len(table)).to(table.dtype).requires_grad_()
        tokens = self.whole(suffix[None])
        embeddings = table[tokens[0]]
        start, end = len(self.before), len(self.before) + len(suffix)
        embeddings = torch.cat((embeddings[:start], one_hot @ table, embeddings[end:]))[None]
        states = self.model.states(tokens, embeddings_BTD=embeddings)[0]
        loss = F.cross_entropy(
            self.model.logits(states[-len(self.wanted) - 1 : -1]), torch.tensor(self.wanted)
        )
        if self.fluency:
            logs = self.model.logits(states[start - 1 : end - 1]).log_softmax(-1)
            loss = loss - self.fluency * (one_hot * logs).sum(-1).mean()
        return torch.autograd.grad(loss, one_hot)[0]

    @torch.no_grad()
    def of(self, suffixes: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each suffix, [B], and whether the likeliest continuation is the wanted one, [B]. They differ
        little from the current one.
        """
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


class _Shared:
    """Keys and values of the current sequence, which candidates share up to where they differ."""

    def __init__(self, loss: Loss, current: Tensor) -> None:
        self.loss = loss
        tokens = loss.whole(current[None])
        self.length = tokens.shape[1]
        self.blocks = blocks_for(self.length)
        self.cache = KVCache(loss.model.shape, self.blocks * (1 + CHUNK))
        self.cache.select(torch.arange(self.blocks)[None], torch.tensor([0]))
        states = loss.model.states(tokens, self.cache)[0]
        start, length = len(loss.before), len(current)
        logs = loss.model.logits(states[start - 1 : start + length - 1]).log_softmax(-1)
        self.surprise = -logs.gather(1, current[:, None]).squeeze(1)
        """Of each token of the current suffix."""

    def losses(self, suffixes: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """The loss of each of at most CHUNK suffixes, and whether it is hit; the first tokens are the current ones."""
        loss, cache, count = self.loss, self.cache, len(suffixes)
        start, length, wanted = len(loss.before), suffixes.shape[1], len(loss.wanted)
        seen = start + first - bool(loss.fluency)  # the surprise of the first token needs the state before it
        whole, own = seen // BLOCK_SIZE, self.blocks - seen // BLOCK_SIZE
        tables = self.blocks + torch.arange(count)[:, None] * own + torch.arange(own)
        cache.keys[:, tables[:, 0]] = cache.keys[:, whole : whole + 1]
        cache.values[:, tables[:, 0]] = cache.values[:, whole : whole + 1]
        shared = torch.arange(whole).expand(count, -1)
        cache.select(torch.cat((shared, tables), 1), torch.full((count,), seen))
        tokens = loss.whole(suffixes)[:, seen:-1]
        states = loss.model.states(tokens, cache)
        logits = loss.model.logits(states[:, -wanted:])
        target = torch.tensor(loss.wanted).expand(count, -1)
        losses = F.cross_entropy(logits.transpose(1, 2), target, reduction="none").mean(1)
        hits = (logits.argmax(-1) == target).all(1)
        if loss.fluency:
            logs = loss.model.logits(states[:, : length - first]).log_softmax(-1)
            surprise = -logs.gather(2, suffixes[:, first:, None]).squeeze(2).sum(1)
            losses = losses + loss.fluency * (surprise + self.surprise[:first].sum()) / length
        return losses, hits


class Found(NamedTuple):
    """A suffix after some steps."""

    ids: Sequence[int]
    steps: int
    hit: bool
    """Whether each model's likeliest continuation is the wanted one."""
    loss: float


def search(
    losses: Sequence[Loss],
    start: Sequence[int],
    allowed: Sequence[int],
    keeps: Callable[[Sequence[int]], bool],
    rng: random.Random,
    *,
    steps: int = STEPS,
    candidates: int = CANDIDATES,
    top: int = TOP,
) -> Iterator[Found]:
    """The suffix after each step, from `start` on. The losses of several models are added up.

    `allowed`: tokens that a suffix may have; `keeps`: whether a suffix survives being sent as text.
    """
    current, generator = torch.tensor(start), torch.Generator().manual_seed(rng.getrandbits(60))
    tokens = torch.tensor(allowed)
    for step in range(1, steps + 1):
        slope = torch.stack([loss.gradient(current) for loss in losses]).sum(0)
        best = tokens[(-slope[:, tokens]).topk(min(top, len(tokens)), dim=1).indices]
        where = torch.randint(len(current), (candidates,), generator=generator)
        which = torch.randint(best.shape[1], (candidates,), generator=generator)
        drawn = current.repeat(candidates, 1)
        drawn[torch.arange(candidates), where] = best[where, which]
        drawn = drawn.unique(dim=0)
        drawn = drawn[[keeps(row) for row in drawn.tolist()]]
        if not len(drawn):
            continue
        totals, hits = torch.zeros(len(drawn)), torch.ones(len(drawn), dtype=torch.bool)
        for loss in losses:
            values, hit = loss.of(drawn, current)
            totals += values
            hits &= hit
        chosen = int(torch.where(hits, totals - 1e3, totals).argmin())
        current = drawn[chosen]
        yield Found(current.tolist(), step, bool(hits[chosen]), float(totals[chosen]))


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

    def loss(self, wanted: str, fluency: float = 0.0) -> Loss:
        """That the reply begins so."""
        return Loss(self.box.model, self.before, self.after, self.tokenizer.encode(wanted), fluency)

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
            "this tokenizer reads no random suffix as it was written; leave gcg, fluent_gcg and random_suffix out"
        )


def printable_tokens(tokenizer: Tokenizer) -> list[int]:
    """Ordinary tokens of printable ASCII."""
    texts = ((index, word.decode("ascii", "replace")) for word, index in tokenizer.vocab.items())
    return sorted(index for index, text in texts if text.isprintable() and text.isascii())


def suffixes(
    goal: Goal, target: Target, rng: random.Random, fluency: float = 0.0, steps: int = STEPS
) -> Iterator[Prompt]:
    """Suffixes that make the likeliest reply begin as wanted, each searched for from a new start, until all steps are
    spent; then where the last search ended. A guard model is searched against at the same time.
    """
    box = target.white_box
    assert box is not None
    place = Place(box, goal.prompt)
    losses = [place.loss(goal.opening, fluency)]
    if box.guard is not None:
        guarded = Place(box.guard, goal.prompt)
        losses.append(guarded.loss(HARMLESS))
    allowed, spent, found = printable_tokens(place.tokenizer), 0, None
    while spent < steps:
        for found in search(losses, place.start(rng), allowed, place.keeps, rng, steps=steps - spent):
            if found.hit:
                yield goal.prompt.asking(place.text(found.ids), spent + found.steps)
                break
        spent += found.steps if found is not None else steps
    if found is not None and not found.hit:
        yield goal.prompt.asking(place.text(found.ids), spent)


def gcg(goal: Goal, target: Target, rng: random.Random) -> Iterator[Prompt]:
    """A fresh search on the target's own weights."""
    return suffixes(goal, target, rng)


def fluent_gcg(goal: Goal, target: Target, rng: random.Random) -> Iterator[Prompt]:
    """The same, and the suffix is to surprise the model little: against filters of perplexity (Jain et al. 2023,
    section 4.1).
    """
    return suffixes(goal, target, rng, FLUENCY)


def random_suffix(goal: Goal, target: Target, rng: random.Random) -> Iterator[Prompt]:
    """As many random tokens, without any search."""
    box = target.white_box
    while True:
        if box is not None:
            place = Place(box, goal.prompt)
            yield goal.prompt.asking(place.text(place.start(rng)))
        else:
            noise = "".join(
                rng.choices(string.ascii_letters + string.digits + string.punctuation, k=3 * LENGTH)
            )
            yield goal.prompt.asking(f"{goal.prompt.request} {noise}")


SUFFIXES = (
    Attack(name="random_suffix", family="suffix", run=random_suffix, control=True),
    Attack(
        name="gcg",
        family="suffix",
        run=gcg,
        white_box=True,
        atlas="AML.T0043",
        adapts_to=frozenset({"refusals in all forms", "adversarial training", "guard model"}),
    ),
    Attack(
        name="fluent_gcg",
        family="suffix",
        run=fluent_gcg,
        white_box=True,
        atlas="AML.T0043",
        adapts_to=frozenset({"perplexity filter"}),
    ),
)
