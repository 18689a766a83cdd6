"""The same questions to each model of a run: what each training made of them."""

from collections.abc import Sequence

import msgspec

from crawltalk import recipe
from crawltalk.engine import Engine, Sampling
from crawltalk.evals.abilities import load_assistant
from crawltalk.evals.assistant import alternate, greedy_replies
from crawltalk.evals.scores import ScoredReply
from crawltalk.run.stage import Job

QUESTIONS = 8
"""At most."""
BASE_TOKENS = 48
"""That the base model adds to a question; it has no reason to stop."""


class Question(msgspec.Struct, kw_only=True):
    """One line of models.jsonl."""

    task: str
    prompt: str
    answer: str
    replies: dict[str, str]
    """Stage -> the greedy reply of its model; of the base model the text that it goes on with."""


def ask_models(
    job: Job[recipe.Evals], base: Engine, answered: Sequence[ScoredReply], max_tokens: int
) -> list[Question]:
    """One question of each kind, put to the base model and to each assistant in the order in which they were made.

    `answered` are the replies of the last assistant, which is not asked again.
    """
    chosen = [row for row in alternate(answered) if row.prompt][:QUESTIONS]
    names: dict[str, str] = {kind: name for name, kind in job.models.items()}  # the last of each kind
    replies: dict[str, list[str]] = {names["base"]: _continued(base, chosen)}
    for name, kind in job.models.items():
        if kind == "assistant" and name != names["assistant"]:
            asked = [row.prompt for row in chosen]
            replies[name] = greedy_replies(load_assistant(job.inputs[name], base), asked, max_tokens)
    replies[names["assistant"]] = [row.reply for row in chosen]
    return [
        Question(
            task=row.task,
            prompt=row.prompt,
            answer=row.answer,
            replies={name: said[index] for name, said in replies.items()},
        )
        for index, row in enumerate(chosen)
    ]


def _continued(base: Engine, chosen: Sequence[ScoredReply]) -> list[str]:
    prompts = [[base.tokenizer.eot, *base.tokenizer.encode(row.prompt)] for row in chosen]
    said = base.generate(prompts, Sampling(temperature=0.0, max_tokens=BASE_TOKENS))
    return [base.tokenizer.decode(ids) for ids in said]
