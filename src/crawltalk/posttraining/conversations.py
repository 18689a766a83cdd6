"""What the assistant is fine-tuned on: conversations of all tasks, mixed; and the problems kept out."""

import random
from collections.abc import Iterable, Mapping, Sequence

from crawltalk.chat.messages import Conversation
from crawltalk.core.types import Document, Placement, Problem
from crawltalk.posttraining.factuality import Question, decided
from crawltalk.recipe import Sft
from crawltalk.tasks import Task, check_counts, draw_corpus, make_tasks
from crawltalk.tasks.reading import Reading
from crawltalk.tasks.recall import Flagship
from crawltalk.tasks.refusal import Refusal


def make_conversations(
    placements: Iterable[Placement],
    documents: Iterable[Document],
    config: Sft,
    seed: int,
    questions: Iterable[Question] = (),
) -> tuple[list[Conversation], list[Problem]]:
    """(conversations to train on, problems that are never trained on); equal for equal seeds.

    `documents` are those of the data stage, and `questions` what the base model answered, if it was asked (the stage
    `factuality`). Raises BadRecipe for `config.tasks` as `check_counts` does.
    """
    check_counts(config.tasks)
    rng = random.Random(seed)
    declined = config.tasks.get(Refusal.name, 0)
    placements, questions = list(placements), list(questions)
    readings = config.tasks.get(Reading.name, 0)
    corpus = draw_corpus(
        placements, documents, rng, declined=declined, assistant=config.name, readings=readings
    )
    if questions:
        corpus = decided(corpus, placements, questions)
    tasks = make_tasks(corpus)
    # all flagships unless the recipe sets a number, and every title that was drawn to be declined
    counts = {Flagship.name: len(corpus.flagships)} | config.tasks
    if counts.get(Refusal.name) != 0:
        counts[Refusal.name] = len(corpus.declined)
    conversations = mix(tasks, counts, rng)
    examined = [task for name, task in tasks.items() if task.examined or counts.get(name)]
    return conversations, [problem for task in examined for problem in task.problems(rng, split="test")]


def mix(tasks: Mapping[str, Task], counts: Mapping[str, int], rng: random.Random) -> list[Conversation]:
    """Conversations of each task, some with two exchanges, all shuffled."""
    conversations = []
    for name, count in counts.items():
        task = tasks[name]
        # problem by problem: both calls draw from `rng`
        conversations += [
            task.conversation(problem, rng) for problem in task.problems(rng, split="train", count=count)
        ]
    conversations += two_exchanges(conversations, rng)
    rng.shuffle(conversations)
    return conversations


def two_exchanges(conversations: Sequence[Conversation], rng: random.Random) -> list[Conversation]:
    """A tenth as many again, each of two that follow each other: what a second question looks like."""
    count = len(conversations) // 10
    return [
        Conversation(messages=[*first.messages, *second.messages], source=f"{first.source}, {second.source}")
        for first, second in zip(
            rng.sample(conversations, count), rng.sample(conversations, count), strict=True
        )
    ]
