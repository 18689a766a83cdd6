"""Tasks of `verifiers` environments (0.4: `verifiers.v1`) as problems, and their rewards.

By duck type: this file imports nothing of that library, which pins other versions of what it shares with us. A task is
whatever has `data.prompt_text` and `await score(trace)`; the trace holds one question and one reply. What needs more
than them, such as a container, is undetermined.
"""

import asyncio
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from types import SimpleNamespace
from typing import Any

from crawltalk.core.errors import BadRecipe
from crawltalk.core.objects import load_object
from crawltalk.core.types import Problem
from crawltalk.rewards.verdict import Verdict, correct, undetermined, wrong


class Environment:
    """The verifier of a taskset's problems."""

    def __init__(self, taskset: Iterable[Any]) -> None:
        """`taskset`: its tasks; one that never ends has to be bounded first (`taskset.take(100)`)."""
        self.tasks = {task.data.prompt_text: task for task in taskset}

    def problems(self) -> list[Problem]:
        """A problem for each task. The answer is the task's `answer`, empty where it has none: such a taskset cannot be
        audited with golds.
        """
        return [
            Problem(prompt=prompt, answer=str(getattr(task.data, "answer", "")), task=type(task).__name__)
            for prompt, task in self.tasks.items()
        ]

    def __call__(self, problem: Problem, reply: str) -> Verdict:
        """The weighted sum of the task's rewards; correct where each is 1."""
        task = self.tasks.get(problem.prompt)
        if task is None:
            return undetermined("the taskset has no such task")
        if missing := [function.__name__ for function in task.hooks("reward") if _needs_runtime(function)]:
            return undetermined(f"the reward {missing[0]} needs the runtime of a rollout")
        trace = Trace(task, reply)
        asyncio.run(task.score(trace))
        if missing := [name for name, reward in trace.rewards.items() if reward is None]:
            return undetermined(f"the reward {missing[0]} was not given")
        rewards = [reward for reward in trace.rewards.values() if reward is not None]
        if not rewards:
            return undetermined("the task has no rewards")
        total = sum(reward.score * reward.weight for reward in rewards)
        right = all(reward.score >= 1 for reward in rewards)
        reasons = ", ".join(f"{name} {reward.score:g}" for name, reward in trace.rewards.items() if reward)
        return correct(total, reasons) if right else wrong(total, reasons)


@dataclass(frozen=True)
class NamedEnvironment:
    """The same by name, for processes that import it anew: `my_package.module:name`, a taskset or a function without
    arguments that makes one.
    """

    path: str
    size: int
    """Tasks that are taken from it, at most."""

    def problems(self) -> list[Problem]:
        """See `Environment`. Raises BadRecipe if the name does not load."""
        return _environment(self).problems()

    def __call__(self, problem: Problem, reply: str) -> Verdict:
        """See `Environment`."""
        return _environment(self)(problem, reply)

    def warm_up(self) -> None:
        """Make the tasks."""
        _environment(self)


@lru_cache(maxsize=64)
def _environment(named: NamedEnvironment) -> Environment:
    try:
        found = load_object(named.path)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadRecipe(f"{named.path!r} is no module:name that loads ({error})") from None
    return Environment(islice(found() if callable(found) else found, named.size))


class Trace:
    """What a reward reads of a rollout, where the rollout is one question and one reply."""

    def __init__(self, task: Any, reply: str) -> None:
        asked = SimpleNamespace(role="user", content=task.data.prompt_text)
        said = SimpleNamespace(role="assistant", content=reply, tool_calls=None)
        self.task = SimpleNamespace(type=type(task).__name__, data=task.data)
        self.messages = [asked, said]
        self.assistant_messages = [said]
        self.tool_messages: list[Any] = []
        self.last_message = said
        self.last_reply = reply.strip()
        self.transcript = f"[user]\n{asked.content}\n\n[assistant]\n{reply}"
        self.num_turns = 1
        self.is_completed = True
        self.errors: list[Any] = []
        self.info: dict[str, Any] = {}
        self.state = SimpleNamespace()
        self.rewards: dict[str, Any] = {}
        self.metrics: dict[str, float | None] = {}

    def record_reward(self, name: str, score: float, weight: float = 1.0) -> None:
        """Called by the task with each reward."""
        self.rewards[name] = SimpleNamespace(score=float(score), weight=weight)

    def record_metric(self, name: str, value: float) -> None:
        """Called by the task with each metric."""
        self.metrics[name] = float(value)

    def record_metrics(self, values: Mapping[str, float]) -> None:
        """Called by the task with metrics that have names of their own."""
        for name, value in values.items():
            self.record_metric(name, value)


def _needs_runtime(function: Any) -> bool:
    parameter = inspect.signature(function).parameters.get("runtime")
    return parameter is not None and parameter.default is inspect.Parameter.empty
