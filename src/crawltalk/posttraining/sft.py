"""The fine-tuning stage: a model learns the conversations of the tasks and of the user's files in the one training
loop. Only tokens of the assistant count in the loss.
"""

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from crawltalk import recipe
from crawltalk.chat.messages import Conversation, Message, text_of
from crawltalk.chat.render import ChatRenderer, Rendered
from crawltalk.chat.tool_calls import as_tools
from crawltalk.core.documents import read_documents
from crawltalk.core.errors import BadInput
from crawltalk.core.jsonl import read_jsonl, write_jsonl
from crawltalk.core.types import Placement, Problem
from crawltalk.engine import Engine, Sampling
from crawltalk.engine.engine import make_backend
from crawltalk.model.adapters import merged
from crawltalk.model.config import read_config, shape_of
from crawltalk.model.transformer import Transformer
from crawltalk.posttraining.conversations import fact_conversations, make_conversations
from crawltalk.posttraining.external_inputs import check_files
from crawltalk.posttraining.factuality import Question
from crawltalk.posttraining.mixture import Mixture, describe, make_mixture
from crawltalk.posttraining.synthesize import Synthesized, reading_conversations
from crawltalk.posttraining.tuning import load_for_tuning, save_tuned, starting_model
from crawltalk.recipe.sft import sft_optim
from crawltalk.run.stage import Job, Metrics, Progress
from crawltalk.train.batches import packed_rows
from crawltalk.train.dropout import with_dropout
from crawltalk.train.evaluate import packed_loss
from crawltalk.train.loop import TrainingOptions, fit
from crawltalk.train.objectives.cross_entropy import cross_entropy
from crawltalk.train.ranks import Ranks

ROW = 256
"""Positions of a row are a multiple of this, or the context."""
EVALUATIONS = 10
"""Evaluations of a training on files, if the recipe does not say how many steps lie between two."""
SAMPLED = 3
"""Questions of validation rows among the sample conversations."""
CACHE_BYTES = 2**26
"""Of the samples' keys and values."""
SAMPLE = Sampling(temperature=0.0, max_tokens=60)


def sft(job: Job[recipe.Sft]) -> Metrics:
    """Make conversations and problems, then train; writes an HF folder, conversations.jsonl, problems.jsonl,
    samples.jsonl, and refused.jsonl if any rows were refused.
    """
    config, ranks = job.config, Ranks.join(job.machine, str(job.out))
    check_files(config)
    folder, chat = starting_model(job, "base", "assistant")
    shape = shape_of(read_config(folder), folder)
    conversations, problems = _of_tasks(job) if "tokens" in job.inputs else ([], [])
    if config.base and job.inputs.keys() & {"synthesize", "factuality"}:  # it can talk already
        conversations = _of_pages(job)
    if config.base and "factuality" in job.inputs:  # the evaluation asks what it asked
        problems = []
    if not conversations and not config.data:
        raise BadInput(
            "there are no conversations to learn from; ask for some: --sft.tasks.identity 300, --tokens.flagships 100, "
            "or give a file: --sft.data.mine.path FILE"
        )
    mixture = make_mixture(conversations, config, chat, shape.context, job.seed)
    if ranks.rank == 0:
        write_jsonl(job.out / "problems.jsonl", problems)
        _write(mixture, job)
    lessons = mixture.one_pass(job.seed)
    rows = [lesson.rendered for lesson in lessons]
    validation = {
        name: [lesson.rendered for lesson in kept] for name, kept in mixture.validation.items() if kept
    }
    length = row_length([*rows, *(row for kept in validation.values() for row in kept)], shape.context)
    batches, per_epoch = packed_rows(rows, length, config.batch_tokens, job.seed)
    steps = max(1, round(config.epochs * per_epoch))
    questions = _questions(config.prompts, mixture)

    def evaluate(done: int, model: Transformer) -> dict[str, Any]:
        losses = {
            f"val_loss.{name}": round(packed_loss(model, kept, length), 4)
            for name, kept in validation.items()
        }
        whole = merged(model) if config.lora.rank else model
        return {**losses, "samples": _samples(whole, chat, questions, done, job.progress)}

    options = TrainingOptions(
        steps=steps,
        optim=sft_optim(config, shape.width),
        machine=job.machine,
        progress=job.progress,
        out=job.out,
        save_every=config.save_every,
        resume_from=config.resume_from,
        evaluate_every=config.eval_every or (max(1, steps // EVALUATIONS) if config.data else steps),
    )
    model = load_for_tuning(folder, config.lora, options, job.seed, ranks)
    batches, objective = with_dropout(batches, cross_entropy, config.lora, job.seed)
    metrics = fit(model, batches, objective, options, evaluate=evaluate, ranks=ranks)
    ranks.leave()
    if ranks.rank > 0:
        return metrics
    rows_of_log = map(json.loads, (job.out / "log.jsonl").read_text(encoding="utf-8").splitlines())
    evaluations = [row for row in rows_of_log if "samples" in row]
    write_jsonl(job.out / "samples.jsonl", [sample for row in evaluations for sample in row["samples"]])
    save_tuned(model, job.out, chat, config, folder, batches(0))
    losses = {name: value for name, value in evaluations[-1].items() if name.startswith("val_loss.")}
    return {
        "conversations": len(lessons),
        "assistant_tokens": sum(sum(row.loss_mask) for row in rows),
        **losses,
        **({"refused": len(mixture.refused)} if mixture.refused else {}),
        **metrics,
    }


def _of_pages(job: Job[recipe.Sft]) -> list[Conversation]:
    """What a model from elsewhere learns: to read these pages, and to say what it knows of them and what not."""
    conversations: list[Conversation] = []
    if "synthesize" in job.inputs:
        rows = read_jsonl(job.inputs["synthesize"] / "questions.jsonl", Synthesized)
        conversations += reading_conversations(list(rows), job.seed)
    if "factuality" in job.inputs:
        asked = read_jsonl(job.inputs["factuality"] / "questions.jsonl", Question)
        conversations += fact_conversations(asked, job.seed)
    return conversations


def _of_tasks(job: Job[recipe.Sft]) -> tuple[list[Conversation], list[Problem]]:
    """The conversations of the tasks, from the run's documents; and the problems kept out."""
    placements = list(read_jsonl(job.inputs["tokens"] / "documents.jsonl", Placement))
    asked = job.inputs.get("factuality")
    questions = read_jsonl(asked / "questions.jsonl", Question) if asked else ()
    questions = [row for row in questions if not row.relation]  # facts are asked of another model
    documents = read_documents(job.inputs["data"])
    return make_conversations(placements, documents, job.config, job.seed, questions)


def row_length(rows: Sequence[Rendered], context: int) -> int:
    """Positions of a row that conversations share: the longest fits, and attention over others' is short."""
    longest = max(len(row.ids) for row in rows)
    return min(context, max(ROW, -(-longest // ROW) * ROW))


def _write(mixture: Mixture, job: Job[recipe.Sft]) -> None:
    """What is learned, and what is not and why."""
    learned = [lesson.conversation for lessons in mixture.learned.values() for lesson in lessons]
    write_jsonl(job.out / "conversations.jsonl", learned)
    if mixture.refused:
        write_jsonl(job.out / "refused.jsonl", mixture.refused)
        counts: dict[str, int] = {}
        for refused in mixture.refused:
            counts[refused.reason] = counts.get(refused.reason, 0) + 1
        job.progress.warn(f"{len(mixture.refused):,} refused, all in refused.jsonl: {describe(counts)}")
    for what, count in mixture.cut.items():
        if count:
            job.progress.note(f"{what}: {count:,}, cut behind the last answer that fits")


def _questions(prompts: Sequence[str], mixture: Mixture) -> list[Conversation]:
    """What samples are asked: the recipe's prompts, and validation rows of all files in turn, with their answers."""
    asked = [Conversation(messages=[Message("user", prompt)], source="prompts") for prompt in prompts]
    kept = [lessons[:SAMPLED] for lessons in mixture.validation.values()]
    in_turn = [lessons[index] for index in range(SAMPLED) for lessons in kept if index < len(lessons)]
    return [*asked, *(lesson.conversation for lesson in in_turn[:SAMPLED])]


def _samples(
    model: Transformer, chat: ChatRenderer, questions: Sequence[Conversation], step: int, progress: Progress
) -> list[dict[str, Any]]:
    """The reply to each question, and what the file answers, if it is from one."""
    engine = Engine(model, chat.tokenizer, make_backend(model, cache_bytes=CACHE_BYTES), chat)
    asked: list[tuple[Conversation, list[Message], str | None]] = []
    for one in questions:
        answer = one.messages[-1] if one.messages[-1].role == "assistant" else None
        asked.append(
            (one, one.messages[:-1] if answer else one.messages, text_of(answer) if answer else None)
        )
    prompts = [
        chat.encode_chat(messages, tools=as_tools(one.tools), add_generation_prompt=True)
        for one, messages, _ in asked
    ]
    replies = [chat.tokenizer.decode(ids) for ids in engine.generate(prompts, SAMPLE)]
    samples = [
        {"step": step, "source": one.source, "messages": msgspec.to_builtins(messages), "reply": reply}
        | ({} if expected is None else {"expected": expected})
        for (one, messages, expected), reply in zip(asked, replies, strict=True)
    ]
    if samples:
        progress.note(f"step {step}: {text_of(asked[0][1][-1])!r} -> {replies[0]!r}")
    return samples
