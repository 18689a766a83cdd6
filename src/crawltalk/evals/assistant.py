"""The assistant's replies to the problems of all tasks, and conversations to read."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from crawltalk.chat.messages import Conversation, Message
from crawltalk.core.jsonl import read_jsonl
from crawltalk.core.types import Problem
from crawltalk.engine import Engine, Sampling
from crawltalk.evals.scores import ScoredReply, score_reply
from crawltalk.run.stage import Progress
from crawltalk.tasks import TASK_OF, score

EXAMPLES = 24
"""Example conversations for the report, those of two exchanges not counted."""


def read_problems(path: str | Path, per_kind: int) -> list[Problem]:
    """The first problems of each kind, at most `per_kind`, from problems.jsonl."""
    counts: Counter[str] = Counter()
    chosen = []
    for problem in read_jsonl(Path(path), Problem):
        counts[problem.task] += 1
        if problem.task in TASK_OF and counts[problem.task] <= per_kind:
            chosen.append(problem)
    return chosen


def greedy_replies(
    assistant: Engine, questions: Sequence[str], max_tokens: int, progress: Progress | None = None
) -> list[str]:
    """What the assistant says to each question, asked alone."""
    prompts = [assistant.chat_prompt([Message("user", question)])[0] for question in questions]
    replies = assistant.generate(
        prompts,
        Sampling(temperature=0.0, max_tokens=max_tokens),
        progress=(lambda done: progress.update(done, len(questions), "problems")) if progress else None,
    )
    return [assistant.tokenizer.decode(ids) for ids in replies]


def answer(
    assistant: Engine, problems: Sequence[Problem], max_tokens: int, progress: Progress
) -> list[ScoredReply]:
    """Put every problem to the assistant, greedily, and score the replies."""
    replies = greedy_replies(assistant, [problem.prompt for problem in problems], max_tokens, progress)
    return [score_reply(problem, reply, score) for problem, reply in zip(problems, replies, strict=True)]


def example_conversations(
    assistant: Engine, replies: Sequence[ScoredReply], max_tokens: int
) -> list[Conversation]:
    """Conversations of every kind in turn, right and wrong as they came; the last ones have two exchanges."""
    chosen = alternate(replies)[:EXAMPLES]
    conversations = [
        Conversation(messages=[Message("user", row.prompt), Message("assistant", row.reply)], source=row.task)
        for row in chosen
    ]
    greedy = Sampling(temperature=0.0, max_tokens=max_tokens)
    for first, second in zip(chosen[:4], chosen[6:10], strict=False):
        messages = [
            Message("user", first.prompt),
            Message("assistant", first.reply),
            Message("user", second.prompt),
        ]
        reply = assistant.reply(messages, greedy)
        conversations.append(
            Conversation(
                messages=[*messages, Message("assistant", reply)], source=f"{first.task}, {second.task}"
            )
        )
    return conversations


def alternate(replies: Sequence[ScoredReply]) -> list[ScoredReply]:
    """The first of each kind, then the second of each kind, and so on."""
    by_kind: dict[str, list[ScoredReply]] = {}
    for row in replies:
        by_kind.setdefault(row.task, []).append(row)
    longest = max(map(len, by_kind.values()), default=0)
    return [rows[index] for index in range(longest) for rows in by_kind.values() if index < len(rows)]
