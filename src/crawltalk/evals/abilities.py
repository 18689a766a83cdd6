"""What the stage measures of several models side by side: the batteries, and weights against context."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from crawltalk import recipe
from crawltalk.core.files import write_atomically
from crawltalk.core.jsonl import write_jsonl
from crawltalk.engine import Engine, load_engine
from crawltalk.engine.backends.cpu import Precision
from crawltalk.evals.batteries import BATTERIES
from crawltalk.evals.batteries.ways import WAYS, Interview
from crawltalk.evals.context import ask_pages, page_questions, read_texts
from crawltalk.evals.grounded import passages_of
from crawltalk.evals.results import Mean, Result, means
from crawltalk.model.config import read_config, shape_of
from crawltalk.model.shape import Shape
from crawltalk.models import model_folder
from crawltalk.recipe.cost import inference_flops, parameters
from crawltalk.run.stage import Job

ROWS, SUMMARY = "abilities.jsonl", "abilities.json"
CACHE_BYTES = 2**28
ELSEWHERE: Precision = "bfloat16"
"""What the weights of models are in that the run did not pretrain."""


class Abilities(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One model; an element of abilities.json."""

    model: str
    parameters: int
    flops_per_token: float
    """Of a token at the beginning of a text: the same for every token but for attention, which adds
    `flops_per_position` for each token before it.
    """
    flops_per_position: float
    context: int
    means: list[Mean]
    precision: str = "float32"
    """What its weights were in when it was asked."""


def load_from_elsewhere(folder: Path) -> Engine:
    """The engine of a model that the run did not pretrain. These are large beside its own, and bfloat16 takes less than
    half of the time.
    """
    return load_engine(folder, precision=ELSEWHERE, cache_bytes=CACHE_BYTES)


def load_assistant(folder: Path, base: Engine, cache_bytes: int = CACHE_BYTES) -> Engine:
    """The engine of an assistant, which may come from elsewhere than the base model of the run."""
    own = shape_of(read_config(folder), folder) == base.shape
    return load_engine(folder, cache_bytes=cache_bytes) if own else load_from_elsewhere(folder)


def computation(shape: Shape) -> tuple[int, float, float]:
    """Parameters; FLOPs of one token; FLOPs that attention adds for each token before it."""
    model = recipe.Model(
        family=shape.family,
        depth=shape.layers,
        width=shape.width,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        mlp=shape.mlp,
        context=shape.context,
        tie_embeddings=shape.tie_embeddings,
    )
    first, second = (inference_flops(model, shape.vocab_size, position) for position in (0, 1))
    return parameters(model, shape.vocab_size), first, second - first


def ask_battery(
    engine: Engine, name: str, count: int, *, chat: bool, seed: int = 0, budgets: Sequence[int] | None = None
) -> list[Result]:
    """The test problems of a battery, `count` of each kind, in every way."""
    battery = BATTERIES[name]
    interview = Interview(engine, battery, chat=chat, seed=seed)
    problems = list(battery.problems(seed, "test", count))
    chosen = battery.budgets if budgets is None else budgets
    return [result for way in WAYS for result in interview.ask(problems, way, chosen)]


def abilities(job: Job[recipe.Evals], base: Engine, assistant: Engine) -> None:
    """Write abilities.jsonl and abilities.json: the run's base model, its assistant, and the models `beside`."""
    models: list[tuple[str, Engine | Path]] = [("base", base), ("assistant", assistant)]
    models += [(name, model_folder(name)) for name in job.config.beside]
    texts = read_texts(job.inputs["data"])
    pages = page_questions(job.inputs["tokens"], texts, job.config.context_pages)
    passages = passages_of(job) if pages else None
    rows: list[Result] = []
    summary: list[Abilities] = []
    for number, (name, model) in enumerate(models):
        job.progress.update(number, len(models), "models side by side")
        engine = load_from_elsewhere(model) if isinstance(model, Path) else model
        speaks = name != "base" and engine.renderer.chats
        results: list[Result] = []
        if passages:
            results += ask_pages(engine, pages, texts, passages, chat=speaks, seed=job.seed)
        if job.config.battery_problems and name != "base":
            for battery in BATTERIES:
                results += ask_battery(
                    engine, battery, job.config.battery_problems, chat=speaks, seed=job.seed
                )
        for result in results:
            result.model = name
        rows += results
        size, flops, per_position = computation(engine.shape)
        summary.append(
            Abilities(
                model=name,
                parameters=size,
                flops_per_token=flops,
                flops_per_position=per_position,
                context=engine.context,
                means=means(results),
                precision=ELSEWHERE if isinstance(model, Path) or engine.shape != base.shape else "float32",
            )
        )
    write_jsonl(job.out / ROWS, rows)
    write_atomically(job.out / SUMMARY, msgspec.json.format(msgspec.json.encode(summary)))
