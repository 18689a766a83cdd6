"""What the assistant is fine-tuned on: conversations of all tasks, mixed; and the problems kept out."""

import random
from collections.abc import Iterable, Mapping, Sequence

from crawltalk.chat.messages import Conversation, Message
from crawltalk.core.types import Document, Placement, Problem
from crawltalk.posttraining.facts import RELATION_OF
from crawltalk.posttraining.factuality import Question, decided, forms_of
from crawltalk.recipe import Sft
from crawltalk.tasks import Task, check_counts, draw_corpus, make_tasks
from crawltalk.tasks.reading import Reading, with_passage
from crawltalk.tasks.recall import Flagship
from crawltalk.tasks.refusal import REPLIES, Refusal


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


def fact_conversations(questions: Iterable[Question], seed: int) -> list[Conversation]:
    """What a model from elsewhere learns from what it was asked: it answers what it got right, in as many forms of the
    question as make both cases equally frequent, and says of the rest that it does not know. Of every third of these
    it also reads the beginning of the page, and answers; of every ninth that of another page, and declines.
    """
    rng = random.Random(f"{seed} facts")
    rows = [row for row in questions if row.split == "train"]
    known = [row for row in rows if row.decision == "answer"]
    unknown = [row for row in rows if row.decision == "decline"]
    rng.shuffle(unknown)  # they come by group and relation

    def talk(row: Question, prompt: str, reply: str) -> Conversation:
        return Conversation(
            messages=[Message("user", prompt), Message("assistant", reply)], source=row.relation
        )

    def answer(row: Question) -> str:
        return RELATION_OF[row.relation].reply.format(row.title, row.answer)

    conversations = []
    for row in known:
        forms = forms_of(row, "train")
        times = min(len(forms), max(1, round(len(unknown) / len(known))))
        conversations += [talk(row, form.format(row.title), answer(row)) for form in rng.sample(forms, times)]
    for number, row in enumerate(unknown):
        question, read = (rng.choice(forms_of(row, "train")).format(row.title) for _ in range(2))
        conversations.append(talk(row, question, rng.choice(REPLIES)))
        if number % 3 == 0 and row.answer in row.passage:
            conversations.append(talk(row, with_passage(row.passage, read), answer(row)))
        if number % 9 == 1:
            other = unknown[number - 1].passage
            conversations.append(talk(row, with_passage(other, read), rng.choice(REPLIES)))
    rng.shuffle(conversations)
    return conversations


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
