"""The evaluation stage: both models through the one decoder."""

import msgspec

from crawltalk import recipe
from crawltalk.core.documents import read_documents
from crawltalk.core.files import write_atomically
from crawltalk.core.jsonl import write_jsonl
from crawltalk.core.shards import TokenShards
from crawltalk.engine import load_engine
from crawltalk.evals import base_model
from crawltalk.evals.abilities import abilities, load_assistant
from crawltalk.evals.assistant import answer, example_conversations, read_problems
from crawltalk.evals.factuality import factuality
from crawltalk.evals.grounded import grounded_scores
from crawltalk.evals.models import ask_models
from crawltalk.evals.scores import Score, mean_score, scores_by_kind
from crawltalk.model.hf import load_model
from crawltalk.run.stage import Job, Metrics
from crawltalk.tasks import TASK_OF
from crawltalk.tasks.recall import Tail
from crawltalk.tasks.scoring import is_refusal
from crawltalk.train.evaluate import bits_per_byte

CACHE_BYTES = 2**27
"""Of each model's keys and values: what a few hundred short prompts need, which hardly share a prefix."""


def evals(job: Job[recipe.Evals]) -> Metrics:
    """Write samples.jsonl, scores.json, recall.jsonl, side_by_side.jsonl, models.jsonl, conversations.jsonl and
    abilities.json; and, if the base model was asked what it knows, factuality.json and factuality.jsonl.
    """
    base, folder = load_engine(job.model("base"), cache_bytes=CACHE_BYTES), job.model("assistant")
    assistant = load_assistant(folder, base, CACHE_BYTES)
    shards = TokenShards(job.inputs["tokens"], "val")
    scores = {
        "bits_per_byte": Score(
            score=round(bits_per_byte(load_model(job.model("base")), shards), 4),
            n=shards.bytes,
            about="base model, held-out text; lower is better",
        )
    }
    flagships = base_model.flagships(job)
    if flagships:
        share = base_model.recitation(base, flagships)
        scores["recitation"] = Score(
            score=round(share, 4),
            n=len(flagships),
            about=f"base model: share of the {base_model.RECITED_TOKENS} tokens after the first "
            f"{base_model.PROMPT_TOKENS}",
        )
    write_jsonl(job.out / "recall.jsonl", base_model.recall(base, job))
    write_jsonl(job.out / "side_by_side.jsonl", base_model.side_by_side(base, job))
    prompted = base_model.prompted(base, job)
    scores |= scores_by_kind(prompted, base_model.PROMPTS)
    problems = read_problems(job.model("assistant") / "problems.jsonl", job.config.problems)
    replies = answer(assistant, problems, job.config.max_tokens, job.progress)
    write_jsonl(job.out / "models.jsonl", ask_models(job, base, replies, job.config.max_tokens))
    scores |= scores_by_kind(replies, {kind: task.about[kind] for kind, task in TASK_OF.items()})
    tail = [float(is_refusal(row.reply)) for row in replies if row.task == Tail.name]
    if tail:
        scores[f"{Tail.name}_refused"] = mean_score(tail, "pages read a few times only, declined")
    if "factuality" in job.inputs:
        documents, config = read_documents(job.inputs["data"]), job.config
        scores |= factuality(
            assistant, job.inputs["factuality"], documents, job.out, config.max_tokens, config.problems
        )
    write_jsonl(job.out / "samples.jsonl", [*prompted, *replies])
    scores |= grounded_scores(job)
    examples = example_conversations(assistant, replies, job.config.max_tokens)
    write_jsonl(job.out / "conversations.jsonl", examples)
    abilities(job, base, assistant)
    write_atomically(job.out / "scores.json", msgspec.json.format(msgspec.json.encode(scores)))
    return {name: score.score for name, score in scores.items()}
