"""Problems and scores of other libraries."""

from types import SimpleNamespace

import pytest

from crawltalk.core.errors import BadInput
from crawltalk.rewards import Outcome, each, verify
from crawltalk.rewards.audit import audit
from crawltalk.rewards.environments import Environment
from support.verifiers import problem


class SumTask:
    """A task as those of verifiers 0.4 look from outside."""

    def __init__(self, prompt: str, answer: str, *, with_runtime: bool = False) -> None:
        self.data = SimpleNamespace(prompt_text=prompt, answer=answer)
        self.with_runtime = with_runtime

    async def right(self, trace) -> float:
        return float(trace.last_reply == self.data.answer)

    async def tested(self, trace, runtime) -> float:
        return 1.0

    def hooks(self, sort: str) -> list:
        return [self.right, self.tested] if self.with_runtime else [self.right]

    async def score(self, trace) -> None:
        trace.rewards["short"] = None
        trace.record_metric("turns", trace.num_turns)
        trace.record_reward("right", await self.right(trace), 0.5)
        if len(trace.assistant_messages[-1].content) < 100:
            trace.record_reward("short", 1.0)


def test_a_task_of_an_environment_rewards_a_reply():
    environment = Environment([SumTask(f"What is {n} + 1?", str(n + 1)) for n in range(8)])
    asked = environment.problems()[1]
    assert (asked.prompt, asked.answer, asked.task) == ("What is 1 + 1?", "2", "SumTask")
    assert verify(environment, asked, "2").reward == 1.5
    assert verify(environment, asked, "3").reward == 1.0
    assert verify(environment, asked, "3").outcome == Outcome.WRONG
    assert verify(environment, asked, "2" * 200).outcome == Outcome.UNDETERMINED
    assert verify(environment, problem("2", "Who?"), "2").outcome == Outcome.UNDETERMINED
    assert audit("sums", each(environment), environment.problems()).faults == []


def test_a_reward_that_needs_a_container_is_undetermined():
    environment = Environment([SumTask("?", "2", with_runtime=True)])
    found = verify(environment, environment.problems()[0], "2")
    assert (found.outcome, found.reason) == (
        Outcome.UNDETERMINED,
        "the reward tested needs the runtime of a rollout",
    )


def test_a_generator_of_reasoning_gym_is_audited_before_it_rewards():
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed (the extra reasoning-gym)")
    from crawltalk.rewards.reasoning_gym import Generator

    def faults(name: str) -> str:
        generator = Generator(name, size=6)
        return "; ".join(audit(name, each(generator), generator.problems()).faults)

    assert faults("basic_arithmetic") == ""
    assert "accepts 18 of 18 of the sort foreign" in faults("puzzle24")
    assert "of the sort words" in faults("game_of_life_halting")
    countdown = Generator("countdown", size=6)
    asked = countdown.problems()[0]
    assert verify(countdown, asked, f"<answer>{asked.answer}</answer>").outcome == Outcome.CORRECT
    assert verify(countdown, asked, "max(1, 2)").reason == "the scorer would run it as Python"
    with pytest.raises(BadInput, match="makes no 'unheard'"):
        Generator("unheard").problems()
