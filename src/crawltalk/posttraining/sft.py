"""The fine-tuning stage: the base model and the conversations go through the one training loop, assistant
tokens counted.
"""

import random
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from crawltalk import recipe
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.documents import read_documents
from crawltalk.core.errors import BadInput
from crawltalk.core.jsonl import read_jsonl, write_jsonl
from crawltalk.core.types import Placement
from crawltalk.model.hf import load_model, save_model
from crawltalk.model.transformer import IGNORED
from crawltalk.posttraining.conversations import Maker
from crawltalk.run.stage import Job, Metrics
from crawltalk.train.loop import fit


def sft(job: Job[recipe.Sft]) -> Metrics:
    """Make conversations and problems, then train; writes an HF folder, conversations.jsonl and
    problems.jsonl.
    """
    config = job.config
    chat = ChatRenderer.load(job.inputs["tokenizer"])
    placements = list(read_jsonl(job.inputs["tokens"] / "documents.jsonl", Placement))
    inside = {placement.id for placement in placements if placement.role in ("flagship", "graded", "train")}
    documents = [document for document in read_documents(job.inputs["data"]) if document.id in inside]
    maker = Maker(placements, documents, config, job.seed)
    conversations = maker.conversations()
    if not conversations:
        raise BadInput(
            "there are no conversations to learn from; ask for some: --sft.identity, --sft.arithmetic, --tokens.flagships"
        )
    write_jsonl(job.out / "conversations.jsonl", conversations)
    write_jsonl(job.out / "problems.jsonl", maker.problems())
    model = load_model(job.inputs["pretrain"])
    rows = [
        row
        for conversation in conversations
        if len((row := chat.render(conversation.messages)).ids) <= model.shape.context
    ]
    if len(rows) < len(conversations):
        job.progress.warn(
            f"{len(conversations) - len(rows)} conversations are longer than the context and were left out"
        )
    batches, per_epoch = padded_batches(rows, config.batch_tokens, job.seed)
    steps = max(1, round(config.epochs * per_epoch))
    spoken = sum(sum(mask) for _, mask in rows)
    metrics = fit(
        model,
        batches,
        steps=steps,
        optim=config.optim,
        out=job.out,
        save_every=config.save_every,
        progress=job.progress,
        machine=job.machine,
        start=config.start,
    )
    assert chat.format is not None
    chat.save(job.out)
    save_model(model, job.out, eos=chat.tokenizer.specials[chat.format.end])
    return {"conversations": len(conversations), "assistant_tokens": spoken, **metrics}


def padded_batches(
    rows: Sequence[tuple[list[int], list[bool]]], batch_tokens: int, seed: int
) -> tuple[Callable[[int], tuple[Tensor, Tensor]], int]:
    """(batches for `fit`, their number in one epoch): rows of similar length together, padded on the right.

    A batch has at most `batch_tokens` positions, padding included. In each epoch every row occurs once; which
    rows meet and in what order the batches come is drawn anew.
    """

    @lru_cache(maxsize=2)
    def epoch_batches(epoch: int) -> list[list[int]]:
        rng = random.Random(f"{seed} {epoch}")
        order = sorted(range(len(rows)), key=lambda row: (len(rows[row][0]), rng.random()))
        batches: list[list[int]] = [[]]
        for row in order:  # ascending, so a batch's last row is its longest
            if batches[-1] and (len(batches[-1]) + 1) * len(rows[row][0]) > batch_tokens:
                batches.append([])
            batches[-1].append(row)
        rng.shuffle(batches)
        return batches

    per_epoch = len(epoch_batches(0))

    def batch(step: int) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(step, per_epoch)
        chosen = [rows[row] for row in epoch_batches(epoch)[place]]
        longest = max(len(ids) for ids, _ in chosen)
        tokens = torch.zeros((len(chosen), longest), dtype=torch.int64)
        targets = torch.full((len(chosen), longest), IGNORED, dtype=torch.int64)
        for index, (ids, spoken) in enumerate(chosen):
            tokens[index, : len(ids)] = torch.tensor(ids)
            following = torch.tensor(ids[1:])
            targets[index, : len(ids) - 1] = torch.where(torch.tensor(spoken[1:]), following, IGNORED)
        return tokens[:, :-1], targets[:, :-1]

    return batch, per_epoch
