"""What a run trained on, ranked for a text: documents for its base model, conversations for its assistant.

What shares runs of tokens or words with the text is found among all. Gradients are computed for the best of these only.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import torch

from crawltalk.attribution.gradients import Example
from crawltalk.attribution.influence import influence
from crawltalk.attribution.retrieved import scores_by_ngrams, scores_by_words
from crawltalk.chat.messages import Conversation, Message, text_of
from crawltalk.chat.render import ChatRenderer
from crawltalk.chat.tool_calls import as_tools
from crawltalk.core.errors import BadInput
from crawltalk.core.types import Document
from crawltalk.model.transformer import Transformer
from crawltalk.retrieval.passages import Passages, build_index
from crawltalk.retrieval.trace import TraceIndex
from crawltalk.tokenizer import Tokenizer

CANDIDATES = 100
"""Documents, or conversations, whose gradients are computed, of those that share most with the text."""
EXCERPT = 160
"""Characters shown of the beginning of each."""


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was learned, and what it is worth to a text."""

    id: str
    """Of a document; of a conversation the number of its line, from 1."""
    url: str
    """Empty for a conversation."""
    title: str
    """Of a document; of a conversation its source."""
    score: float
    """By influence: how much a step on it lowers the loss of the text, in a unit of its own. Else as in
    `crawltalk.attribution.retrieved`. Comparable within one list only.
    """
    excerpt: str


class TrainingDocuments:
    """The documents of the token shards that a base model was trained on."""

    def __init__(self, index: TraceIndex, tokenizer: Tokenizer, context: int) -> None:
        """`context`: of the model; longer documents are cut."""
        self.index, self.tokenizer, self.context = index, tokenizer, context
        places, end = index.shards.documents, len(index.shards)
        ends = [*(start for start, _ in places[1:]), end]
        self._places = {name: (start, end) for (start, name), end in zip(places, ends, strict=True)}

    def by_ngrams(self, text: str, rows: int) -> list[Ranked]:
        """The best `rows` documents by the pairs of tokens that they share with a text."""
        return self._listed(self._shared(text), rows)

    def by_words(self, text: str, passages: Passages, rows: int) -> list[Ranked]:
        """The best `rows` documents by the words that they share with a text. `passages` may hold others, too."""
        scores = scores_by_words(passages, text, passages.count)
        return self._listed({name: score for name, score in scores.items() if name in self._places}, rows)

    def by_influence(
        self, text: str, models: Sequence[Transformer], rows: int, candidates: int = CANDIDATES
    ) -> list[Ranked]:
        """The `rows` documents that made a text likelier most, as much of it as fits into the context, of the best
        `candidates` by pairs of tokens. `models`: checkpoints of the training, whose scores are added up.
        """
        chosen = _best(self._shared(text))[:candidates]
        query = self._encode(text)[: self.context + 1]
        groups = [_pieces(self._tokens(name), self.context) for name in chosen]
        scores = _influence(models, (query, [True] * len(query)), groups)
        return self._listed(dict(zip(chosen, scores, strict=True)), rows)

    def _shared(self, text: str) -> dict[str, float]:
        return scores_by_ngrams(self.index, self._encode(text)[1:])

    def _encode(self, text: str) -> list[int]:
        return [self.tokenizer.eot, *self.tokenizer.encode(text)]

    def _tokens(self, name: str) -> list[int]:
        """Of a document, behind the separator."""
        start, end = self._places[name]
        return self.index.shards.window(start, end - start).tolist()

    def _listed(self, scores: Mapping[str, float], rows: int) -> list[Ranked]:
        placements = self.index.placements
        return [
            Ranked(
                id=name,
                url=placements[name].url,
                title=placements[name].title,
                score=scores[name],
                excerpt=_excerpt(self.tokenizer.decode(self._tokens(name)[1 : EXCERPT + 1])),
            )
            for name in _best(scores)[:rows]
        ]


def conversations_by_influence(
    prompt: str,
    reply: str,
    model: Transformer,
    conversations: Sequence[Conversation],
    chat: ChatRenderer,
    rows: int,
    candidates: int = CANDIDATES,
) -> list[Ranked]:
    """The `rows` conversations that made a reply to a prompt likelier most, of the best `candidates` by words that they
    share with both. Raises BadInput for a prompt that leaves no room for a reply.
    """
    query, context = chat.render([Message("user", prompt), Message("assistant", reply)]), model.shape.context
    if not any(query.loss_mask[: context + 1]):
        raise BadInput(f"the prompt fills the model's context of {context} tokens; give a shorter one")
    chosen = _sharing_words(f"{prompt} {reply}", conversations, candidates)
    learned = {}
    for number in chosen:
        one = conversations[number]
        rendered = chat.render(one.messages, tools=as_tools(one.tools), unlearned=one.unlearned)
        if any(rendered.loss_mask[1 : context + 1]):
            learned[number] = [(rendered.ids[: context + 1], rendered.loss_mask[: context + 1])]
    example = query.ids[: context + 1], query.loss_mask[: context + 1]
    scores = _influence([model], example, list(learned.values()))
    best = sorted(zip(learned, scores, strict=True), key=lambda row: -row[1])[:rows]
    return [
        Ranked(
            id=str(number + 1),
            url="",
            title=conversations[number].source,
            score=score,
            excerpt=_excerpt(_written(conversations[number])),
        )
        for number, score in best
    ]


def _pieces(ids: Sequence[int], context: int) -> list[Example]:
    """A document as examples that fit into the context: all tokens are learned once but the first, the separator."""
    starts = range(0, max(len(ids) - 1, 1), context)
    pieces = [list(ids[start : start + context + 1]) for start in starts]
    return [(piece, [True] * len(piece)) for piece in pieces if len(piece) > 1]


def _excerpt(text: str) -> str:
    """The beginning of a text in one line."""
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else f"{line[: EXCERPT - 1]}…"


def _influence(
    models: Sequence[Transformer], query: Example, groups: Sequence[Sequence[Example]]
) -> list[float]:
    """Of each group of examples the sum of their influences on the query, over all models."""
    examples = [example for group in groups for example in group]
    if not examples:
        return []
    owners = torch.tensor([number for number, group in enumerate(groups) for _ in group])
    sums = torch.zeros(len(groups))
    for model in models:
        sums.index_add_(0, owners, influence(model, [query], examples)[0])
    return sums.tolist()


def _sharing_words(text: str, conversations: Sequence[Conversation], limit: int) -> list[int]:
    """Numbers of the conversations that share most words with a text."""
    documents = (
        Document(
            text=_written(one), id=str(number), dump="", url="", date="", file_path="", language="",
            language_score=1.0, token_count=0,
        )
        for number, one in enumerate(conversations)
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        path = Path(folder) / "passages.sqlite"
        build_index(path, documents, "")
        scores = scores_by_words(Passages(path), text, limit)
    return [int(name) for name in _best(scores)]


def _best(scores: Mapping[str, float]) -> list[str]:
    """The names, that of the highest score first."""
    return sorted(scores, key=lambda name: -scores[name])


def _written(conversation: Conversation) -> str:
    return "\n".join(text_of(message) for message in conversation.messages)
