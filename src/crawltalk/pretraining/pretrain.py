"""Pretraining: next-token prediction on the token shards, from random weights to a base model in Hugging
Face's layout.
"""

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from crawltalk import recipe
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import BadInput
from crawltalk.core.jsonl import read_jsonl, write_jsonl
from crawltalk.core.shards import TokenShards
from crawltalk.core.types import Placement
from crawltalk.engine import Engine, Sampling
from crawltalk.engine.engine import make_backend
from crawltalk.model.hf import save_model
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
from crawltalk.recipe.cost import training_flops
from crawltalk.recipe.model import tied
from crawltalk.recipe.size import fit_to_corpus
from crawltalk.run.stage import Job, Metrics
from crawltalk.tokenizer import Tokenizer
from crawltalk.train.batches import windows
from crawltalk.train.evaluate import bits_per_byte
from crawltalk.train.loop import TrainingOptions, fit
from crawltalk.train.objectives.cross_entropy import cross_entropy
from crawltalk.train.precision import matmul_peak
from crawltalk.train.ranks import Ranks

PROMPTS = 3
"""Titles that the model continues if the recipe has no prompts."""
CACHE_BYTES = 2**26
"""Of the samples' keys and values: memory that is there beside the training's."""
SAMPLE = Sampling(temperature=0.7, top_k=50, max_tokens=60)


def pretrain(job: Job[recipe.Pretrain]) -> Metrics:
    """Train the base model; writes an HF folder with log.jsonl and samples.jsonl."""
    ranks = Ranks.join(job.machine, str(job.out))
    chat = ChatRenderer.load(job.inputs["tokenizer"])
    tokenizer = chat.tokenizer
    train, validation = TokenShards(job.inputs["tokens"], "train"), TokenShards(job.inputs["tokens"], "val")
    if train.index.vocab_size != tokenizer.vocab_size:
        raise BadInput(
            f"{job.inputs['tokens']} was made with a vocabulary of {train.index.vocab_size}, "
            f"{job.inputs['tokenizer']} has {tokenizer.vocab_size}; build both again with: crawltalk tokenizer"
        )
    config = fit_to_corpus(job.config, tokenizer.vocab_size, len(train))
    prompts = _titles(job.inputs["tokens"]) if config.prompts is None else config.prompts
    if len(train) < config.model.context + 1:
        raise BadInput(
            f"{job.inputs['tokens']} has {len(train)} training tokens, fewer than one window of "
            f"{config.model.context}; give more documents (--tokens.include, --crawl.source) or a "
            "shorter --pretrain.model.context"
        )
    model = Transformer(shape_of(config.model, tokenizer.vocab_size))
    model.initialize(job.seed)
    if config.save_keep < 1:
        raise BadInput(f"pretrain.save_keep is {config.save_keep}; keep at least 1 checkpoint to resume from")
    if config.model.family == "speedrun":
        job.progress.warn(
            "a model of the family speedrun runs in crawltalk only: there is no exact export to other libraries"
        )
    rows = max(1, config.batch_tokens // config.model.context)
    assert config.tokens is not None
    steps = max(1, config.tokens // (rows * config.model.context))
    parameters = sum(weight.numel() for weight in model.parameters())
    job.progress.note(
        f"{parameters / 1e6:.1f} M parameters, {steps} steps of {rows} x {config.model.context} tokens"
    )

    def evaluate(done: int, model: Transformer) -> dict[str, Any]:
        samples = _samples(model, tokenizer, prompts, done)
        for sample in samples[:1]:
            job.progress.note(f"step {done}: {sample['prompt']}{sample['text']!r}")
        bpb = bits_per_byte(model, validation, document_mask=config.document_mask)
        return {"val_bpb": round(bpb, 4), "samples": samples}

    def save(done: int, model: Transformer) -> None:
        folder = job.out / "checkpoints" / f"step-{done:06d}"
        save_model(model, folder, eos=tokenizer.eot)
        chat.save(folder)

    options = TrainingOptions(
        steps=steps,
        optim=config.optim,
        machine=job.machine,
        progress=job.progress,
        out=job.out,
        save_every=config.save_every,
        save_keep=config.save_keep,
        resume_from=config.resume_from,
        evaluate_every=config.eval_every,
        save_model_every=config.keep_every,
    )
    batches = windows(train, rows, config.model.context, job.seed, document_mask=config.document_mask)
    metrics = fit(model, batches, cross_entropy, options, evaluate=evaluate, save_model=save, ranks=ranks)
    ranks.leave()
    if ranks.rank > 0:
        return metrics
    rows_of_log = map(json.loads, (job.out / "log.jsonl").read_text().splitlines())
    evaluations = [row for row in rows_of_log if "samples" in row]
    write_jsonl(job.out / "samples.jsonl", [sample for row in evaluations for sample in row["samples"]])
    chat.save(job.out)
    save_model(model, job.out, eos=tokenizer.eot, bos=None)
    tokens = steps * rows * config.model.context
    peak = ranks.world_size * matmul_peak(
        getattr(torch, str(metrics["dtype"])), ranks.device(job.machine.device)
    )
    flop = training_flops(config.model, tokenizer.vocab_size, 1)
    return {
        "val_bpb": evaluations[-1]["val_bpb"],
        **metrics,
        "peak_fraction": round(flop * float(metrics["tokens_per_second"]) / peak, 3),
        "peak_gflops": round(peak / 1e9),
        "parameters": parameters,
        **({"depth": model.shape.layers} if job.config.model.depth is None else {}),
        "tokens": tokens,
        "flop": flop * tokens,
        "epochs": round(tokens / len(train), 2),
    }


def shape_of(model: recipe.Model, vocab_size: int) -> Shape:
    """The resolved section of the recipe as a shape. Raises BadInput for one that does not divide."""
    assert model.depth is not None
    assert model.width is not None
    assert model.heads is not None
    assert model.kv_heads is not None
    assert model.mlp is not None
    sizes = (model.depth, model.width, model.heads, model.kv_heads, model.head_dim, model.mlp, model.context)
    heads_width = model.heads * model.head_dim
    wrong = ""
    if min(sizes) < 1:
        wrong = "every size is at least 1"
    elif model.heads % model.kv_heads:
        wrong = f"heads = {model.heads} is no multiple of kv_heads = {model.kv_heads}"
    elif model.family == "gpt2" and (heads_width != model.width or model.kv_heads != model.heads):
        wrong = (
            "gpt2 has heads x head_dim = width and as many kv_heads, "
            f"not {model.heads} x {model.head_dim} = {model.width}"
        )
    elif model.family != "gpt2" and model.head_dim % 2:
        wrong = f"head_dim = {model.head_dim} is odd, and rotary positions turn pairs"
    if wrong:
        raise BadInput(
            f"pretrain.model: {wrong}; change --pretrain.model.width, .heads, .kv_heads or .head_dim"
        )
    return Shape(
        family=model.family,
        vocab_size=vocab_size,
        layers=model.depth,
        width=model.width,
        heads=model.heads,
        kv_heads=model.kv_heads,
        head_dim=model.head_dim,
        mlp=model.mlp,
        context=model.context,
        rope_theta=model.rope_theta,
        norm_eps=1e-6 if model.family == "qwen3" else 1e-5,
        tie_embeddings=tied(model),
    )


def _titles(tokens: Path) -> list[str]:
    """Titles of flagships, as prompts."""
    path = tokens / "documents.jsonl"
    rows = read_jsonl(path, Placement) if path.exists() else ()
    return list(islice((row.title for row in rows if row.role == "flagship" and row.title), PROMPTS))


def _samples(
    model: Transformer, tokenizer: Tokenizer, prompts: Sequence[str], step: int
) -> list[dict[str, Any]]:
    """One continuation of each prompt."""
    if not prompts:
        return []
    ids = [[tokenizer.eot, *tokenizer.encode(prompt)] for prompt in prompts]
    engine = Engine(model, tokenizer, make_backend(model, cache_bytes=CACHE_BYTES))
    replies = engine.generate(ids, SAMPLE)
    return [
        {"step": step, "prompt": p, "text": tokenizer.decode(r)}
        for p, r in zip(prompts, replies, strict=True)
    ]
