"""What every stage that fine-tunes does around its training: the model that it starts from, whole or with adapters, and
the folder that it leaves.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import BadInput
from crawltalk.core.files import write_atomically
from crawltalk.core.jsonl import write_jsonl
from crawltalk.model.adapters import add_adapters, attach, merge_adapters, save_adapter
from crawltalk.model.hf import load_model, save_model
from crawltalk.model.transformer import Transformer
from crawltalk.models import model_folder
from crawltalk.recipe import Dpo, Factuality, Grpo, Lora, Optim, Reward, Rlhf, Sft
from crawltalk.run.stage import Job, ModelKind
from crawltalk.train.batches import Batch, packed_rows
from crawltalk.train.loop import TrainingOptions, beginning
from crawltalk.train.objectives.cross_entropy import cross_entropy
from crawltalk.train.ranks import Ranks

ADAPTER = "adapter"
"""The folder of the adapter in that of the stage; beside it stands the merged model."""
CHECKED_ROWS, TOLERANCE = 2, 1e-3
"""Rows on which a merged model is compared, and how far its loss may be from that with adapters, relatively."""


def starting_model(
    job: Job[Factuality] | Job[Sft] | Job[Dpo] | Job[Grpo] | Job[Reward] | Job[Rlhf], *kinds: ModelKind
) -> tuple[Path, ChatRenderer]:
    """The folder of the model that a stage starts from, `base` or the last input of one of these kinds, and how
    conversations are written for it. Raises MissingInput, or BadInput for a model without a chat format.
    """
    folder = (
        model_folder(job.config.base, prefer=("base", "assistant")) if job.config.base else job.model(*kinds)
    )
    chat = ChatRenderer.load(folder)
    if not chat.chats:
        raise BadInput(
            f"{folder} has no chat format: its vocabulary has no tokens for turns, such as <|im_start|>; start from a "
            "model that has, such as: --sft.base smollm2"
        )
    return folder, chat


def load_for_tuning(
    folder: Path, lora: Lora, options: TrainingOptions, seed: int, ranks: Ranks
) -> Transformer:
    """The model in fp32, where it is trained; with adapters, in the dtype that it computes in: what is frozen is needed
    in no other.
    """
    device = str(ranks.device(options.machine.device))
    if not lora.rank:
        return load_model(folder, device=device)
    if options.machine.shard:
        raise BadInput("adapters are small, and trained unsharded: leave machine.shard out, or lora.rank")
    _, dtype, _ = beginning(options, ranks)
    model = load_model(folder, device=device, dtype=dtype)
    add_adapters(model, lora, seed)
    return model


def save_tuned(
    model: Transformer,
    out: Path,
    chat: ChatRenderer,
    config: Sft | Dpo | Grpo | Rlhf,
    base: Path,
    batch: Batch,
) -> None:
    """Write the model with its tokenizer and chat format; of one with adapters these as PEFT's folder, too, and `base`
    with them merged in fp32. Raises BadInput if merging changes the loss of the `batch`.
    """
    if config.lora.rank:
        save_adapter(model, out / ADAPTER, config.lora, str(base.resolve()))
        model = merge_checked(model, base, batch)
    chat.save(out)
    save_model(model, out, eos=end_of_reply(chat))


def end_of_reply(chat: ChatRenderer) -> int | list[int]:
    """What ends a reply: the end of a turn, or all that the model's own files name."""
    if chat.template is None and chat.format is not None:
        return chat.tokenizer.special_tokens[chat.format.end]
    return sorted(chat.stop_ids)


def pass_on_problems(folder: Path, out: Path) -> None:
    """Copy problems.jsonl, what no fine-tuning learns and the evaluation asks; an empty one if `folder` has none."""
    problems = folder / "problems.jsonl"
    write_atomically(out / problems.name, problems.read_bytes() if problems.exists() else b"")


def reinforcement_options(job: Job[Grpo] | Job[Rlhf], optim: Optim) -> TrainingOptions:
    """How a stage that learns from rewards is trained."""
    config = job.config
    return TrainingOptions(
        steps=config.steps,
        optim=optim,
        machine=replace(job.machine, compile=bool(job.machine.compile)),  # each step has rows of other shapes
        progress=job.progress,
        out=job.out,
        save_every=config.save_every,
        resume_from=config.resume_from,
        evaluate_every=config.eval_every,
    )


def save_reinforced(
    model: Transformer,
    job: Job[Grpo] | Job[Rlhf],
    chat: ChatRenderer,
    base: Path,
    prompts: Sequence[list[int]],
    before: Sequence[Mapping[str, Any]] = (),
) -> Mapping[str, Any]:
    """Write the model as `save_tuned` does, checked on the `prompts`; its problems; and samples.jsonl from all
    evaluations, those `before` the training first. Returns the last evaluation.
    """
    rows = map(json.loads, (job.out / "log.jsonl").read_text(encoding="utf-8").splitlines())
    evaluations = [*before, *(row for row in rows if "samples" in row)]
    write_jsonl(job.out / "samples.jsonl", [sample for row in evaluations for sample in row["samples"]])
    pass_on_problems(base, job.out)
    length = max(map(len, prompts))  # not the context, which may be thousands of positions
    batches, _ = packed_rows([(ids, [True] * len(ids)) for ids in prompts], length, CHECKED_ROWS * length, 0)
    save_tuned(model, job.out, chat, job.config, base, batches(0))
    return evaluations[-1]


def merge_checked(model: Transformer, base: Path, batch: Batch) -> Transformer:
    """`base` in fp32 with the adapters of `model`, whose frozen weights may be in another dtype. Raises BadInput if
    the loss of the batch's first rows is another one once they are merged.
    """
    batch = batch[:CHECKED_ROWS].to(torch.device("cpu"))
    whole = load_model(base)
    attach(whole, model.cpu())
    apart = _loss(whole, batch)
    merge_adapters(whole)
    together = _loss(whole, batch)
    if not abs(together - apart) <= TOLERANCE * max(1.0, apart):  # not a number: neither
        raise BadInput(
            f"merging the adapter changes the loss from {apart:.4f} to {together:.4f}, so the merged model would be "
            "another one; train with a lower rate: --sft.lora.lr 0.0003"
        )
    return whole


@torch.no_grad()
def _loss(model: Transformer, batch: Batch) -> float:
    total, count, _ = cross_entropy(model, batch)
    return float(total) / max(1, int(count))
