"""The fine-tuning stage: the base model learns the conversations in the one training loop. Only tokens of the
assistant count in the loss.
"""

from collections.abc import Sequence

from crawltalk import recipe
from crawltalk.chat.messages import Conversation
from crawltalk.chat.render import ChatRenderer, Rendered
from crawltalk.core.documents import read_documents
from crawltalk.core.errors import BadInput
from crawltalk.core.jsonl import read_jsonl, write_jsonl
from crawltalk.core.types import Placement
from crawltalk.model.hf import load_model, save_model
from crawltalk.posttraining.conversations import make_conversations
from crawltalk.posttraining.factuality import Question
from crawltalk.recipe.optim import derive_optim
from crawltalk.recipe.sft import MUON_LR
from crawltalk.run.stage import Job, Metrics
from crawltalk.train.batches import packed_rows
from crawltalk.train.loop import TrainingOptions, fit
from crawltalk.train.objectives.cross_entropy import cross_entropy
from crawltalk.train.ranks import Ranks

ROW = 256
"""Positions of a row are a multiple of this, or the context."""


def sft(job: Job[recipe.Sft]) -> Metrics:
    """Make conversations and problems, then train; writes an HF folder, conversations.jsonl and
    problems.jsonl.
    """
    config, ranks = job.config, Ranks.join(job.machine, str(job.out))
    chat = ChatRenderer.load(job.inputs["tokenizer"])
    placements = list(read_jsonl(job.inputs["tokens"] / "documents.jsonl", Placement))
    documents = read_documents(job.inputs["data"])
    asked = job.inputs.get("factuality")
    questions = read_jsonl(asked / "questions.jsonl", Question) if asked else ()
    conversations, problems = make_conversations(placements, documents, config, job.seed, questions)
    if not conversations:
        raise BadInput(
            "there are no conversations to learn from; ask for some: --sft.tasks.identity 300, --tokens.flagships 100"
        )
    if ranks.rank == 0:
        write_jsonl(job.out / "conversations.jsonl", conversations)
        write_jsonl(job.out / "problems.jsonl", problems)
    model = load_model(job.model("base", "assistant"))
    rows = rows_that_fit(conversations, chat, model.shape.context)
    if len(rows) < len(conversations):
        job.progress.warn(
            f"{len(conversations) - len(rows)} conversations are longer than the context and were left out"
        )
    length = row_length(rows, model.shape.context)
    batches, per_epoch = packed_rows(rows, length, config.batch_tokens, job.seed)
    options = TrainingOptions(
        steps=max(1, round(config.epochs * per_epoch)),
        optim=derive_optim(config.optim, model.shape.width, MUON_LR),
        machine=job.machine,
        progress=job.progress,
        out=job.out,
        save_every=config.save_every,
        resume_from=config.resume_from,
    )
    metrics = fit(model, batches, cross_entropy, options, ranks=ranks)
    ranks.leave()
    if ranks.rank > 0:
        return metrics
    assert chat.format is not None
    chat.save(job.out)
    save_model(model, job.out, eos=chat.tokenizer.special_tokens[chat.format.end])
    assistant_tokens = sum(sum(mask) for _, mask in rows)
    return {"conversations": len(conversations), "assistant_tokens": assistant_tokens, **metrics}


def rows_that_fit(conversations: Sequence[Conversation], chat: ChatRenderer, context: int) -> list[Rendered]:
    """The conversations of at most `context` tokens. Raises BadInput if there are none."""
    rendered = (chat.render(conversation.messages) for conversation in conversations)
    rows = [row for row in rendered if len(row.ids) <= context]
    if not rows:
        raise BadInput(
            f"all {len(conversations)} conversations are longer than the context of {context} tokens; "
            "make it larger: --pretrain.model.context 256"
        )
    return rows


def row_length(rows: Sequence[Rendered], context: int) -> int:
    """Positions of a row that conversations share: the longest fits, and attention over others' is short."""
    longest = max(len(row.ids) for row in rows)
    return min(context, max(ROW, -(-longest // ROW) * ROW))
