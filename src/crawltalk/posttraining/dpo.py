"""The stage of direct preference optimization: the last assistant learns which of two replies is preferred.

What the model that it starts from thinks of all replies is computed once, before the training, and kept in the work
folder; a stage that was killed goes on where it was.
"""

import copy
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from crawltalk import recipe
from crawltalk.chat.messages import Message, Preference
from crawltalk.chat.render import ChatRenderer, Rendered
from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.jsonl import write_jsonl
from crawltalk.model.config import read_config, shape_of
from crawltalk.model.transformer import Transformer
from crawltalk.posttraining.formats import read_preferences
from crawltalk.posttraining.mixture import Refused, describe
from crawltalk.posttraining.tuning import load_for_tuning, pass_on_problems, save_tuned, starting_model
from crawltalk.recipe.dpo import dpo_optim
from crawltalk.run.stage import STATE, Job, Metrics, Progress
from crawltalk.train.batches import Batch, Batches
from crawltalk.train.dropout import with_dropout
from crawltalk.train.loop import TrainingOptions, beginning, fit
from crawltalk.train.objectives.preference import pair_log_probs, pairs_of, preference
from crawltalk.train.ranks import Ranks

REFERENCE = "reference.bin"
"""In the folder of the training's state: of each pair two fp64, in the order of the pairs."""
REFERENCE_PAIRS = 8
"""Pairs whose reference is computed and written at once."""


class Pair(NamedTuple):
    """Two continuations as token ids; the loss masks are those of the continuations alone."""

    chosen: Rendered
    rejected: Rendered


def dpo(job: Job[recipe.Dpo]) -> Metrics:
    """Read the preferences, then train; writes an HF folder, preferences.jsonl (trained on) and problems.jsonl."""
    config, ranks = job.config, Ranks.join(job.machine, str(job.out))
    folder, chat = starting_model(job, "assistant")
    shape = shape_of(read_config(folder), folder)
    preferences, refused = read_pairs(config.data, job.progress)
    pairs, used = pairs_that_fit(preferences, chat, shape.context, job.progress)
    per_epoch = -(-len(pairs) // config.batch_pairs)
    options = TrainingOptions(
        steps=max(1, round(config.epochs * per_epoch)),
        optim=dpo_optim(config, shape.width),
        machine=job.machine,
        progress=job.progress,
        out=job.out,
        save_every=config.save_every,
        resume_from=config.resume_from,
    )
    model = load_for_tuning(folder, config.lora, options, job.seed, ranks)
    if ranks.rank == 0:
        write_jsonl(job.out / "preferences.jsonl", used)
        if refused:
            write_jsonl(job.out / "refused.jsonl", refused)
        pass_on_problems(folder, job.out)
    dtype = beginning(options, ranks)[1]
    path = job.out / STATE / (REFERENCE if ranks.rank == 0 else f"{ranks.rank}-{REFERENCE}")
    reference = reference_log_probs(model, pairs, path, dtype, job.progress)
    batches = batches_of_pairs(pairs, reference, config.batch_pairs, job.seed)
    objective = preference(config.beta, config.label_smoothing)
    batches, objective = with_dropout(batches, objective, config.lora, job.seed)
    metrics = fit(model, batches, objective, options, ranks=ranks)
    ranks.leave()
    if ranks.rank > 0:
        return metrics
    save_tuned(model, job.out, chat, config, folder, batches(0))
    return {"pairs": len(pairs), **metrics}


def read_pairs(paths: Sequence[str], progress: Progress) -> tuple[list[Preference], list[Refused]]:
    """The preferences of all files, and what was set aside with its reason. Raises MissingInput for a missing file."""
    preferences, refused = list[Preference](), list[Refused]()
    for path in paths:
        if not Path(path).exists():
            raise MissingInput(f"{path} does not exist; give a file of preferences: --dpo.data FILE")
        for row in read_preferences(path):
            preferences += row.items
            if row.reason:
                refused.append(Refused(file=path, row=row.number, reason=row.reason))
    if refused:
        counts = Counter(row.reason for row in refused)
        progress.warn(f"{len(refused):,} refused, all in refused.jsonl: {describe(counts)}")
    return preferences, refused


def pairs_that_fit(
    preferences: Sequence[Preference], chat: ChatRenderer, context: int, progress: Progress
) -> tuple[list[Pair], list[Preference]]:
    """The pairs that a model can learn from, and their preferences; it is reported how many others there are and why.
    Raises BadInput if there are none.
    """
    pairs, used, reasons = list[Pair](), list[Preference](), Counter[str]()
    for row in preferences:
        pair = Pair(*(_continuation(chat, row.messages, reply) for reply in (row.chosen, row.rejected)))
        if reason := _unfit(pair, context):
            reasons[reason] += 1
        else:
            pairs.append(pair)
            used.append(row)
    listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    if not pairs:
        raise BadInput(
            f"of {len(preferences)} pairs of replies none can be learned from ({listed or 'the files are empty'})"
        )
    if listed:
        progress.warn(f"pairs that were left out: {listed}")
    return pairs, used


def _continuation(chat: ChatRenderer, messages: Sequence[Message], reply: Sequence[Message]) -> Rendered:
    """A whole conversation whose loss mask begins with the reply."""
    before, whole = len(chat.render(messages).ids), chat.render([*messages, *reply])
    return Rendered(whole.ids, [False] * before + whole.loss_mask[before:])


def _unfit(pair: Pair, context: int) -> str | None:
    if pair.chosen.ids == pair.rejected.ids:
        return "with two equal replies"
    if not any(pair.chosen.loss_mask) or not any(pair.rejected.loss_mask):
        return "with an empty reply"
    if max(len(reply.ids) for reply in pair) > context:
        return f"longer than the context of {context} tokens"
    return None


def batches_of_pairs(pairs: Sequence[Pair], reference: torch.Tensor, batch_pairs: int, seed: int) -> Batches:
    """Each epoch has every pair once, in a new order; `reference` is [pairs, 2]. In a batch the longest come first,
    so that rows that are computed together are of one length.
    """
    per_epoch = -(-len(pairs) // batch_pairs)

    def batch(step: int) -> Batch:
        epoch, index = divmod(step, per_epoch)
        order = random.Random(f"{seed} {epoch}").sample(range(len(pairs)), len(pairs))
        chosen = order[index * batch_pairs : (index + 1) * batch_pairs]
        chosen.sort(key=lambda number: -_length(pairs[number]))
        return _batch([pairs[number] for number in chosen], reference[chosen])

    return batch


def reference_log_probs(
    model: Transformer, pairs: Sequence[Pair], path: Path, dtype: torch.dtype, progress: Progress
) -> torch.Tensor:
    """What the model gives to the replies of each pair, [pairs, 2], fp64, computed in `dtype` as the training is. Each
    few pairs are appended to a file, and those that it has already are not computed again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    size = REFERENCE_PAIRS * 2 * 8
    written = path.stat().st_size
    done = written if written == len(pairs) * 16 else written // size * size  # a last one may be torn
    order = sorted(range(len(pairs)), key=lambda number: -_length(pairs[number]))
    copied = None
    with path.open("r+b") as file:
        file.truncate(done)
        file.seek(done)
        for start in range(done // 16, len(pairs), REFERENCE_PAIRS):
            if copied is None:
                copied = model if model.embedding.weight.dtype == dtype else copy.deepcopy(model).to(dtype)
            numbers = order[start : start + REFERENCE_PAIRS]
            batch = _batch([pairs[number] for number in numbers], torch.zeros(len(numbers), 2))
            with torch.no_grad():
                log_p = pair_log_probs(copied, batch.to(copied.embedding.weight.device))
            file.write(log_p.double().cpu().numpy().tobytes())
            file.flush()
            progress.update(start + len(numbers), len(pairs), "pairs measured")
    values = np.fromfile(path, dtype=np.float64).reshape(-1, 2)
    result = torch.empty(len(pairs), 2, dtype=torch.float64)
    result[order] = torch.from_numpy(values)
    return result


def _length(pair: Pair) -> int:
    return max(len(reply.ids) for reply in pair)


def _batch(pairs: Sequence[Pair], reference: torch.Tensor) -> Batch:
    return pairs_of([pair.chosen for pair in pairs], [pair.rejected for pair in pairs], reference)
