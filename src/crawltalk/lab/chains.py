"""What the claims about reinforcement share: chains of calculations as characters, people who demonstrate how to solve
them and make mistakes, and how replies are judged.

A problem is a chain of additions and multiplications of which only the last digit counts: `3+4*7+2?` is ((3 + 4) * 7)
+ 2. A terse answer is the digit, a worked one writes every step: `3+4=7;7*7=9;9+2=1;1`.
"""

import random
from collections.abc import Callable, Sequence

from crawltalk.core.types import Problem
from crawltalk.lab.student import Example, Reply, Student
from crawltalk.posttraining.forecast import Forecast, length_forecast
from crawltalk.posttraining.reinforce import Group
from crawltalk.recipe import Optim
from crawltalk.rewards.verdict import Verdict, correct, wrong
from crawltalk.tasks.chains import Chain, draw_chain
from crawltalk.tasks.task import Split

ALPHABET = "0123456789+*=;?"
SIGNS = "+*"
FACTS = 20
"""Single steps in an example of pretraining."""
AGAIN = "!"
"""Stands before a step that is done once more."""
LINE = 6
"""Characters of a step in a worked answer."""
REWARDED = Optim(muon_lr=0.0, adamw_lr=5e-4, warmup=0.0, cooldown=0.0, spike=0.0)
"""Of reinforcement: AdamW at one rate."""


def draw(rng: random.Random, steps: int, split: Split) -> Chain:
    """A chain of the split."""
    return draw_chain(rng, steps, SIGNS, 9, split)


def asked(chain: Chain, opening: str = "") -> Problem:
    """The problem; an `opening` begins the reply for the model."""
    prompt = f"{chain.start}{''.join(f'{sign}{other}' for sign, other in chain.steps)}?{opening}"
    return Problem(prompt=prompt, answer=str(chain.values(10)[-1]), task="last_digit")


def exam(steps: int, count: int) -> list[Problem]:
    """Problems that nobody is trained on, the same for all seeds."""
    rng = random.Random(f"tests {steps}")
    return [asked(draw(rng, steps, "test")) for _ in range(count)]


def step(value: int, sign: str, other: int) -> int:
    """The last digit of a single step."""
    return (value + other if sign == "+" else value * other) % 10


def facts(rng: random.Random) -> Example:
    """Single steps, each right."""
    drawn = [(rng.randint(0, 9), rng.choice(SIGNS), rng.randint(0, 9)) for _ in range(FACTS)]
    return Example("", "".join(f"{a}{sign}{b}={step(a, sign, b)};" for a, sign, b in drawn))


def results(reply: str) -> list[bool]:
    """Of each character of single steps whether it is a result: what stands before it cannot be known."""
    return [index % LINE == LINE - 2 for index in range(len(reply))]


def worked(chain: Chain, rng: random.Random, mistakes: float, notices: float = 0.0) -> str:
    """Every step, each wrong with a probability of `mistakes`; then what came out. Of the mistakes a share of `notices`
    is seen, marked with `!`, and the step written again.
    """
    value, lines = chain.start, []
    for sign, other in chain.steps:
        right = result = step(value, sign, other)
        if rng.random() < mistakes:
            result = (result + rng.randint(1, 9)) % 10
            if rng.random() < notices:
                lines.append(f"{value}{sign}{other}={result};{AGAIN}")
                result = right
        lines.append(f"{value}{sign}{other}={result};")
        value = result
    return f"{''.join(lines)}{value}"


def terse(chain: Chain, rng: random.Random, mistakes: float) -> str:
    """The digit alone, wrong with a probability of `mistakes`."""
    return str((chain.values(10)[-1] + (rng.randint(1, 9) if rng.random() < mistakes else 0)) % 10)


def is_worked(reply: str) -> bool:
    """Whether a reply writes steps down."""
    return "=" in reply


def judge(problems: Sequence[Problem], replies: Sequence[str]) -> list[Verdict]:
    """What stands behind the last step has to be the answer."""
    return [
        correct() if reply.rpartition(";")[2] == problem.answer else wrong()
        for problem, reply in zip(problems, replies, strict=True)
    ]


def drawn_problems(steps: int, groups: int, seed: int) -> Callable[[int, Sequence[Group]], Sequence[Problem]]:
    """New problems of the training in each step of a reinforcement."""

    def problems(number: int, _: Sequence[Group]) -> list[Problem]:
        rng = random.Random(f"problems {seed} {number}")
        return [asked(draw(rng, steps, "train")) for _ in range(groups)]

    return problems


def scores(problems: Sequence[Problem], replies: Sequence[Reply]) -> list[bool]:
    """Whether each reply is right."""
    verdicts = judge(problems, [reply.text for reply in replies])
    return [verdict.reward == 1.0 for verdict in verdicts]


def mean(values: Sequence[float]) -> float:
    """Rounded to four places; 0 of none."""
    return round(sum(values) / len(values), 4) if values else 0.0


def measure(student: Student, problems: Sequence[Problem], temperature: float = 0.0) -> dict[str, float]:
    """Accuracy, tokens of a reply, and the same of worked and of terse replies."""
    replies = student.answer([problem.prompt for problem in problems], temperature)
    right = scores(problems, replies)
    long = [is_worked(reply.text) for reply in replies]
    return {
        "accuracy": mean(right),
        "length": mean([reply.tokens for reply in replies]),
        "worked": mean(long),
        "accuracy_worked": mean([one for one, is_long in zip(right, long, strict=True) if is_long]),
        "accuracy_terse": mean([one for one, is_long in zip(right, long, strict=True) if not is_long]),
    }


def pass_at(student: Student, problems: Sequence[Problem], samples: int, seed: int = 0) -> float:
    """The share of problems with a right reply among `samples`, at temperature 1."""
    prompts = [problem.prompt for problem in problems for _ in range(samples)]
    replies = student.answer(prompts, 1.0, seed=seed)
    right = scores([problem for problem in problems for _ in range(samples)], replies)
    return mean([any(right[start : start + samples]) for start in range(0, len(right), samples)])


def forecast(student: Student, problems: Sequence[Problem], samples: int, seed: int = 0) -> Forecast:
    """What RL will do to the length of replies, from `samples` of them to each problem."""
    asked_often = [problem for problem in problems for _ in range(samples)]
    replies = student.answer([problem.prompt for problem in asked_often], 1.0, seed=seed)
    rewards = [float(one) for one in scores(asked_often, replies)]
    lengths = [reply.tokens for reply in replies]
    starts = range(0, len(replies), samples)
    return length_forecast(
        [lengths[at : at + samples] for at in starts], [rewards[at : at + samples] for at in starts]
    )
