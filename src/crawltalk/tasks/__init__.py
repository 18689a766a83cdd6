"""Tasks: problems whose replies can be scored. Fine-tuning, evaluation and rewards use the same ones.

A new task is a file in this folder and a name in `TASKS`. From then on `[sft.tasks]` can ask for conversations
of it, and its score is in scores.json and in the report.
"""

import difflib
from collections.abc import Mapping

from crawltalk.core.errors import BadRecipe
from crawltalk.core.types import Problem
from crawltalk.tasks.arithmetic import Arithmetic
from crawltalk.tasks.chains import Chains
from crawltalk.tasks.corpus import Corpus, draw_corpus
from crawltalk.tasks.countdown import Countdown
from crawltalk.tasks.identity import Identity
from crawltalk.tasks.multiplication import Multiplication
from crawltalk.tasks.reading import Reading
from crawltalk.tasks.recall import Flagship, Tail
from crawltalk.tasks.refusal import Refusal
from crawltalk.tasks.scoring import spoken
from crawltalk.tasks.spelling import Spelling
from crawltalk.tasks.task import Split, Task
from crawltalk.tasks.word_problems import WordProblems

TASKS: tuple[type[Task], ...] = (
    *(Flagship, Refusal, Tail, Reading, Arithmetic, Spelling, Identity),
    *(Chains, Multiplication, Countdown, WordProblems),
)
"""In the order of problems.jsonl and scores.json."""

TASK_OF: dict[str, type[Task]] = {kind: task for task in TASKS for kind in task.about}
"""Kind of problem (`Problem.task`) -> its task."""

__all__ = [
    "TASKS",
    "TASK_OF",
    "Corpus",
    "Split",
    "Task",
    "check_counts",
    "draw_corpus",
    "make_tasks",
    "score",
]


def make_tasks(corpus: Corpus) -> dict[str, Task]:
    """All tasks by name, in the order of `TASKS`."""
    return {task.name: task(corpus) for task in TASKS}


def score(problem: Problem, reply: str) -> float:
    """The score of a reply, from 0 to 1, by the task that the problem belongs to. What is thought does not count."""
    return TASK_OF[problem.task].score(problem, spoken(reply))


def check_counts(counts: Mapping[str, float], key: str = "sft.tasks") -> None:
    """Raise BadRecipe for the first name that no task has, or that is only examined, or number below 0; `key` is where
    they stand.
    """
    known = [task.name for task in TASKS]
    examined = [task.name for task in TASKS if not task.taught]
    for name, count in counts.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise BadRecipe(f"{key}: no task is called {name!r}{hint}; tasks: {', '.join(known)}")
        if count < 0:
            raise BadRecipe(f"{key}.{name} is {count}; it must be 0 or more, 0 for none")
        if name in examined and count:
            raise BadRecipe(
                f"{key}.{name} is {count}, but {name} is only examined and never taught; leave it out"
            )
