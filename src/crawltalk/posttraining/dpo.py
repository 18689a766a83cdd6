"""The stage of direct preference optimization: the last assistant learns which of two replies is preferred.

What the model that it starts from thinks of all replies is computed once, before the training, and kept in the work
folder; a stage that was killed goes on where it was.
"""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from crawltalk import recipe
from crawltalk.core.files import write_atomically
from crawltalk.core.jsonl import write_jsonl
from crawltalk.model.config import read_config, shape_of
from crawltalk.model.transformer import Transformer
from crawltalk.posttraining.pairs import Pair, draw_pairs, length_of, pairs_that_fit, read_pairs
from crawltalk.posttraining.tuning import load_for_tuning, save_tuned, starting_model
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


def dpo(job: Job[recipe.Dpo]) -> Metrics:
    """Read the preferences, then train; writes an HF folder, preferences.jsonl (trained on) and problems.jsonl."""
    config, ranks = job.config, Ranks.join(job.machine, str(job.out))
    folder, chat = starting_model(job, "assistant")
    shape = shape_of(read_config(folder), folder)
    preferences, refused = read_pairs(config.data, job.progress, "dpo")
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
        problems = folder / "problems.jsonl"
        write_atomically(job.out / problems.name, problems.read_bytes() if problems.exists() else b"")
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


def batches_of_pairs(pairs: Sequence[Pair], reference: torch.Tensor, batch_pairs: int, seed: int) -> Batches:
    """The pairs as `draw_pairs` says; `reference` is [pairs, 2]."""

    def batch(step: int) -> Batch:
        drawn = draw_pairs(pairs, batch_pairs, seed, step)
        return _batch([pairs[number] for number in drawn], reference[drawn])

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
    order = sorted(range(len(pairs)), key=lambda number: -length_of(pairs[number]))
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


def _batch(pairs: Sequence[Pair], reference: torch.Tensor) -> Batch:
    return pairs_of([pair.chosen for pair in pairs], [pair.rejected for pair in pairs], reference)
