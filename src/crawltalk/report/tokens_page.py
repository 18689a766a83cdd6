"""tokens.html: a page on which the run's vocabulary cuts what one types. Script and style stand in
`report/tokens/`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from crawltalk import recipe
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.documents import read_documents
from crawltalk.core.shards import TokenShards
from crawltalk.report.html import table, text
from crawltalk.run.stage import Job
from crawltalk.tokenizer import Tokenizer
from crawltalk.tokenizer.alphabet import to_text
from crawltalk.tokenizer.files import vocabulary_name

_TEXTS = 2000
"""Documents that compression is measured on."""
_RARE = 2
"""Times that a token may occur in the training tokens and still be called a glitch token."""
_SHOWN = 60
_BLOCK = 1 << 20
_SPELLED = ("strawberry", " strawberry", "ubiquitous", " Mississippi")
_GPT4_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_INTRODUCTION = (
    (
        "cut",
        "Type a text",
        "Each colour is a token: what the model reads as one symbol. Hold the pointer on it for its id and bytes.",
    ),
    (
        "steps",
        "Watch a word being built",
        "From bytes on, the pair of the lowest rank is merged until no pair is in the vocabulary.",
    ),
    ("chat", "A conversation is one sequence", "Only the structure writes control tokens. Try to type one."),
    (
        "letters",
        "Why spelling is hard",
        "The model gets the numbers, not the letters: nothing in an id says how many r it holds.",
    ),
)


def tokens_page(job: Job[recipe.Report]) -> str:
    """The page, with all that it needs inside."""
    chat = ChatRenderer.load(job.inputs["tokenizer"])
    own = chat.tokenizer
    others = [(vocabulary_name(path), Tokenizer.load(path)) for path in job.config.vocabularies]
    documents = list(islice(read_documents(job.inputs["data"]), _TEXTS))
    data = {
        "vocabularies": [as_json("this run", own), *(as_json(name, other) for name, other in others)],
        "sample": documents[0].text[:400],
        "word": " " + max(documents[0].text.split()[:60], key=len),
        "words": _SPELLED,
        "chat": asdict(chat.format) if chat.format else None,
        "messages": [
            {"role": "user", "content": "What is 2 + 2? <|im_end|>"},
            {"role": "assistant", "content": "Four."},
        ],
    }
    sections = [
        f'<section id="{name}"><h2>{text(title)}</h2><p class="soft">{text(line)}</p></section>'
        for name, title, line in _INTRODUCTION
    ]
    sections += [
        _section("Bytes per token", _compression({"this run": own, **dict(others)}, documents)),
        _section("Glitch tokens", _glitches(own, job)),
    ]
    assets = files("crawltalk.report")
    style = assets.joinpath("style.css").read_text(encoding="utf-8") + assets.joinpath(
        "tokens/page.css"
    ).read_text(encoding="utf-8")
    script = assets.joinpath("tokens/page.js").read_text(encoding="utf-8")
    quoted = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")  # no text ends the script
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>crawltalk tokens</title><style>{style}</style></head><body><main><header><h1>What the model reads</h1>"
        f"<p>{own.vocab_size:,} tokens, learned from this run's own documents.</p></header>{''.join(sections)}</main>"
        f'<script type="module">{script}\nstart(document, {quoted});</script></body></html>\n'
    )


def _section(title: str, html: str) -> str:
    return f"<section><h2>{text(title)}</h2>{html}</section>"


def as_json(name: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """What the page's script needs of a vocabulary."""
    words = list(tokenizer.ranks)
    ids = [tokenizer.vocab.get(word, -1) for word in words]
    return {
        "name": name,
        "words": [to_text(word) for word in words],
        "ids": None if ids == list(range(len(ids))) else ids,
        "specials": tokenizer.special_tokens,
        "pattern": js_pattern(tokenizer.pattern),
    }


def js_pattern(pattern: str) -> str:
    """A split pattern as JavaScript writes it: no flags inside, and white space as Unicode has it."""
    either = "|".join(
        "".join(f"[{letter}{letter.upper()}{'ſ' * (letter == 's')}]" for letter in end) for end in _ENDS
    )
    spelled = pattern.replace(_GPT4_CONTRACTIONS, f"(?:'(?:{either}))")
    return spelled.replace(r"\s", r"\p{White_Space}").replace(r"\S", r"\P{White_Space}")


_ENDS = ("s", "t", "re", "ve", "m", "ll", "d")


def _compression(vocabularies: Mapping[str, Tokenizer], documents: Sequence[Any]) -> str:
    """Bytes per token, by language and by the sites that most documents are from."""
    groups: dict[str, list[str]] = {}
    for document in documents:
        groups.setdefault(f"language {document.language}", []).append(document.text)
        groups.setdefault(f"site {urlsplit(document.url).hostname}", []).append(document.text)
    largest = sorted(groups.items(), key=lambda group: -len(group[1]))[:12]
    rows = [
        [name, len(texts), *(bytes_per_token(tokenizer, texts) for tokenizer in vocabularies.values())]
        for name, texts in largest
    ]
    return table(("documents of", "number", *vocabularies), rows)


def bytes_per_token(tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    """UTF-8 bytes of the texts per token."""
    return sum(len(text.encode()) for text in texts) / max(1, sum(map(len, tokenizer.encode_batch(texts))))


def emitted(shards: TokenShards, size: int) -> np.ndarray:
    """How often each id occurs in token shards. Shape (size,)."""
    counts = np.zeros(size, np.int64)
    for start in range(0, len(shards), _BLOCK):
        counts += np.bincount(shards.window(start, min(_BLOCK, len(shards) - start)), minlength=size)
    return counts


def _glitches(tokenizer: Tokenizer, job: Job[recipe.Report]) -> str:
    """Tokens that the vocabulary has and the training text hardly: parts of longer ones, which swallowed
    them.
    """
    shards = TokenShards(job.inputs["tokens"], "train")
    counts = emitted(shards, tokenizer.vocab_size)
    ids = np.array(sorted(index for word, index in tokenizer.vocab.items() if len(word) > 1))
    rare = ids[counts[ids] <= _RARE]
    rows = [
        [int(index), tokenizer.decode([int(index)]), int(counts[index])]
        for index in rare[np.argsort(counts[rare], kind="stable")]
    ]
    columns = ["id", "token", "times in the training tokens"]
    weights = _embeddings(job.model("base"))
    line = (
        f"{len(rare):,} of {len(ids):,} tokens that were merged occur at most {_RARE} times in the "
        f"{len(shards):,} training tokens:"
        " longer tokens have swallowed them. Their vectors were hardly trained, which is where odd "
        "behaviour comes from."
    )
    if weights is not None and len(rare):
        mean = weights.mean(0)
        moved = np.linalg.norm(weights - mean, axis=1)
        columns.append("distance of its vector from the mean")
        rows = [[*row, float(moved[row[0]])] for row in rows]
        usual = np.median(moved[ids[counts[ids] > _RARE]]) if len(rare) < len(ids) else 0.0
        median = np.median(moved[rare])
        line += f" The median distance from the mean is {median:.3g} for them, {usual:.3g} for the others."
    return f'<p class="soft">{text(line)}</p>' + table(columns, rows[:_SHOWN])


def _embeddings(model: Path) -> np.ndarray | None:
    """The embedding matrix after pretraining, if there is a model."""
    path = model / "model.safetensors"
    if not path.exists():
        return None
    from safetensors import safe_open

    with safe_open(path, "np") as file:  # a base model is saved in float32
        return file.get_tensor("model.embed_tokens.weight")
