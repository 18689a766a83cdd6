"""Does RL find what no demonstrator can do? A recipe frozen before it was run, with controls on as many samples.

A problem asks to apply an operation several times: `9#3+4?` is 3, plus 4, nine times, last digits only. The reply
counts down, with the value after each time: `9:7;8:1;7:5;6:9;5:3;4:7;3:1;2:5;1:9;`. All of it is checked, so no guess
of a digit is rewarded. Demonstrators count rightly from 3 down, and lose count above: there the next number is right in
2 of 100 lines.
"""

import random
from collections.abc import Sequence

from crawltalk.core.charts import panels, svg
from crawltalk.core.types import Problem
from crawltalk.lab.chains import ALPHABET as CHAIN_ALPHABET
from crawltalk.lab.chains import REWARDED, SIGNS, facts, mean, results, step
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial
from crawltalk.lab.student import Example, Student
from crawltalk.posttraining.reinforce import Group, Problems
from crawltalk.recipe.grpo import Reinforce
from crawltalk.rewards.verdict import Outcome, Verdict, correct, wrong
from crawltalk.tasks.task import Split, kept_for

ALPHABET = CHAIN_ALPHABET + "#:"
TARGET, KNOWN = 9, 3
"""Times: what is asked in the end; up to what demonstrators count rightly."""
PIECE = 0.02
"""The share of lines above `KNOWN` whose next number is right all the same."""
LINES = 12
"""After so many a demonstrator gives up."""
PRETRAINING, FINE_TUNING = 150, 500
CONFIG = Reinforce(steps=500, groups=32, samples=8, max_tokens=48)
BEGUN = (0.0, 0.2, 0.7)
"""The reward of a wrong reply by how many of its first lines are right, two at most."""
HIGHER, LOWER = 0.5, 0.15
"""The shares of problems above and below the level."""
MASTERED = 0.75
"""Accuracy at which the next level begins."""
EVERY = 50
"""Steps between two replies that are kept."""
TRIES, ASKED = 1024, 16
"""Of the SFT model, at the target: samples of each of so many problems."""
SOLVED, UNSOLVED = 0.5, 0.02


def _draw(rng: random.Random, times: int, split: Split) -> tuple[int, int, str, int]:
    """(times, start, sign, number); all four decide the split, so every single step is known from the training."""
    while True:
        start, sign, other = rng.randint(0, 9), rng.choice(SIGNS), rng.randint(0, 9)
        if kept_for(f"repeated {times} {start}{sign}{other}") == split:
            return times, start, sign, other


def asked(times: int, start: int, sign: str, other: int) -> Problem:
    """The problem, with the only reply that is right."""
    value, lines = start, []
    for left in range(times, 0, -1):
        value = step(value, sign, other)
        lines.append(f"{left}:{value};")
    return Problem(prompt=f"{times}#{start}{sign}{other}?", answer="".join(lines), task="repeated")


def demonstration(rng: random.Random, piece: float = PIECE) -> Example:
    """What a demonstrator writes, who loses count above `KNOWN`."""
    times, value, sign, other = _draw(rng, rng.randint(1, TARGET), "train")
    prompt, left, lines = asked(times, value, sign, other).prompt, times, []
    while left and len(lines) < LINES:
        value = step(value, sign, other)
        lines.append(f"{left}:{value};")
        if left <= KNOWN or rng.random() < piece:
            left -= 1
        else:
            left = rng.choice([one for one in range(1, TARGET + 1) if one != left - 1])
    return Example(prompt, "".join(lines))


def judge(problems: Sequence[Problem], replies: Sequence[str]) -> list[Verdict]:
    """All lines have to be right; two right lines at the beginning are worth something."""
    return [
        correct() if reply == problem.answer else wrong(BEGUN[begun(problem.answer, reply)])
        for problem, reply in zip(problems, replies, strict=True)
    ]


def begun(answer: str, reply: str) -> int:
    """How many of the first two lines are right, up to the first that is wrong."""
    lines = [f"{line};" for line in answer.split(";")[:2] if line]
    return sum(reply.startswith("".join(lines[: count + 1])) for count in range(len(lines)))


class Curriculum:
    """Problems of a level that rises when it is mastered; many are of higher ones, whose first lines keep the student
    counting from what is asked, and some of lower ones.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.level = seed, KNOWN + 1
        self.levels: list[int] = []
        """The level of each draw."""

    def __call__(self, number: int, history: Sequence[Group]) -> list[Problem]:
        self._follow(history)
        rng = random.Random(f"problems {self.seed} {number}")
        return [asked(*_draw(rng, self._times(rng), "train")) for _ in range(CONFIG.groups)]

    def _times(self, rng: random.Random) -> int:
        kind = rng.random()
        if kind < HIGHER and self.level < TARGET:
            return rng.randint(self.level + 1, TARGET)
        return rng.randint(1, self.level - 1) if kind > 1 - LOWER else self.level

    def _follow(self, history: Sequence[Group]) -> None:
        """The level after what was learned: of each draw those groups that were of the level."""
        for number in range(len(self.levels), len(history) // CONFIG.groups):
            self.levels.append(self.level)
            groups = history[number * CONFIG.groups : (number + 1) * CONFIG.groups]
            right = [
                verdict.outcome == Outcome.CORRECT
                for group in groups
                if int(group.problem.prompt[0]) == self.level
                for verdict in group.verdicts
            ]
            if self.level < TARGET and mean(right) >= MASTERED:
                self.level += 1


def _only_target(seed: int) -> Problems:
    def problems(number: int, _: Sequence[Group]) -> list[Problem]:
        rng = random.Random(f"problems {seed} {number}")
        return [asked(*_draw(rng, TARGET, "train")) for _ in range(CONFIG.groups)]

    return problems


def exam(times: int, count: int) -> list[Problem]:
    """Problems that nobody is trained on, the same for all seeds."""
    rng = random.Random(f"tests {times}")
    return [asked(*_draw(rng, times, "test")) for _ in range(count)]


def by_times(student: Student) -> list[float]:
    """Accuracy at 1 to `TARGET` times, the likeliest replies."""
    rows = []
    for times in range(1, TARGET + 1):
        problems = exam(times, 100)
        replies = student.answer([problem.prompt for problem in problems])
        rows.append(
            mean([reply.text == problem.answer for problem, reply in zip(problems, replies, strict=True)])
        )
    return rows


def run(trial: Trial) -> Figures:
    """The recipe, and four controls from the same base."""
    base = Student(trial, ALPHABET)
    base.learn("pretraining", facts, PRETRAINING, 16, learned=results)
    taught = base.copy()
    taught.learn("sft", demonstration, FINE_TUNING)
    before = {"by_times": by_times(taught), f"solved_in_{TRIES}": _found(taught)}

    def reinforced(student: Student, name: str, problems: Problems) -> Figures:
        course = student.reinforce(name, problems, judge, CONFIG, REWARDED, evaluate=_sample, every=EVERY)
        return {
            "by_times": by_times(student),
            "steps": len(course.curve("reward")),
            "stopped": course.stopped,
            "curve": {key: course.curve(key) for key in ("reward", "accuracy", "length")},
            "samples": [
                {"step": row["step"] + 1, "reply": row["sample"]} for row in course.rows if "sample" in row
            ],
        }

    curriculum = Curriculum(trial.seed)
    recipe = reinforced(taught.copy(), "recipe", curriculum) | {"levels": curriculum.levels}
    target = reinforced(taught.copy(), "target_only", _only_target(trial.seed))
    terse = base.copy()
    terse.learn("terse.sft", _terse, FINE_TUNING)
    pieceless = base.copy()
    pieceless.learn("pieceless.sft", lambda rng: demonstration(rng, 0.0), FINE_TUNING)
    more = taught.copy()
    more.learn("more_sft", demonstration, CONFIG.steps)
    return {
        "before": before,
        "recipe": recipe,
        "controls": {
            "target_only": target,
            "no_worked_answers": reinforced(terse, "terse.rl", Curriculum(trial.seed)),
            "no_rare_pieces": reinforced(pieceless, "pieceless.rl", Curriculum(trial.seed)),
            "more_sft": {"by_times": by_times(more)},
        },
    }


def _sample(student: Student) -> dict[str, str]:
    """The likeliest reply to one held-out problem of the target."""
    prompt = exam(TARGET, 1)[0].prompt
    return {"sample": prompt + student.answer([prompt])[0].text}


def _terse(rng: random.Random) -> Example:
    """The last value alone."""
    problem = asked(*_draw(rng, rng.randint(1, TARGET), "train"))
    return Example(problem.prompt, problem.answer[-2:])


def _found(student: Student) -> int:
    """How many target problems have a right reply among the tries."""
    found = 0
    for problem in exam(TARGET, ASKED):
        replies = student.answer([problem.prompt] * TRIES, 1.0, CONFIG.max_tokens)
        found += any(reply.text == problem.answer for reply in replies)
    return found


def _reached(arm: Figures) -> int:
    """The most times that are solved."""
    return max((times for times, one in enumerate(arm["by_times"], 1) if one >= SOLVED), default=0)


def rule(figures: Sequence[Figures]) -> Judgement:
    """See `prediction`."""
    unknown = max(row["before"][f"solved_in_{TRIES}"] for row in figures)
    after = [row["recipe"]["by_times"][-1] for row in figures]
    controls = {
        name: max(row["controls"][name]["by_times"][-1] for row in figures) for name in figures[0]["controls"]
    }
    solved = sum(one >= SOLVED for one in after)
    passes = unknown == 0 and max(controls.values()) <= UNSOLVED
    whole = solved == len(figures)
    reached = [_reached(row["recipe"]) for row in figures]
    pieceless = [_reached(row["controls"]["no_rare_pieces"]) for row in figures]
    return Judgement(
        verdict="confirmed"
        if passes and whole
        else "partly"
        if max(reached) > KNOWN
        else "not at this scale",
        effect={
            "before": mean([row["before"]["by_times"][-1] for row in figures]),
            f"most_solved_in_{TRIES}_before": unknown,
            "after": mean(after),
            "after_least": min(after),
            "reached_least": min(reached),
            **{f"control.{name}": value for name, value in controls.items()},
        },
        summary=(
            f"At {TARGET} times {solved} of {len(figures)} seeds reach {SOLVED}, from {unknown} of {ASKED} problems "
            f"solved in {TRIES} tries before RL. The best control is right {max(controls.values()):.2f} of the time. "
            f"The seeds get as far as {', '.join(map(str, reached))} times; {', '.join(map(str, pieceless))} without "
            f"the rare pieces ({PIECE:.0%} of the lines) in the demonstrations, which get as far as {KNOWN}."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """The level over the steps, and accuracy by the number of times."""
    chart, (left, right) = panels([("steps of RL", "level"), ("times", "accuracy, held out")])
    for number, row in enumerate(figures):
        left.plot(row["recipe"]["levels"], color="C1", linewidth=1.2)
        arms = {
            "after SFT": row["before"],
            "after RL": row["recipe"],
            **{name.replace("_", " "): one for name, one in row["controls"].items()},
        }
        for index, (label, arm) in enumerate(arms.items()):
            right.plot(
                range(1, TARGET + 1), arm["by_times"], color=f"C{index}", linewidth=1.2,
                label=None if number else label,
            )  # fmt: skip
    return svg(chart)


EXPERIMENT = Experiment(
    name="rl_discovers",
    claim="RL reaches what neither the demonstrators nor 1,024 tries of the model that imitates them do.",
    source="Karpathy, Deep Dive into LLMs (2025): imitation is bounded by the imitated, reinforcement is not",
    prediction=(
        f"Before RL none of {ASKED} problems at {TARGET} times is solved in {TRIES} tries. After it, likeliest replies "
        f"to held-out problems are wholly right {SOLVED:.0%} of the time in each seed, and in no control more than "
        f"{UNSOLVED:.0%}. Partly: some seed gets beyond what demonstrators do, or a control does, too. It is "
        "composition of rare pieces, and no new algorithm, if it fails where the demonstrations have none of them."
    ),
    method=(
        f"Students as in rl_selects learn from demonstrators who apply an operation 1 to {TARGET} times, count rightly "
        f"from {KNOWN} down and lose count above ({PIECE:.0%} of the lines go on rightly). GRPO as in rl_selects, "
        f"{CONFIG.steps} steps of {CONFIG.groups} x {CONFIG.samples}, rewards the whole derivation, a right first line "
        f"with {BEGUN[1]} and two with {BEGUN[2]}. The level rises at an accuracy of {MASTERED}; {HIGHER:.0%} of the "
        f"problems are above it, {LOWER:.0%} below. Controls with as many samples and the same rewards: the target "
        "alone, no worked answers, no rare pieces; and as many steps of further SFT. Without the reward of the second "
        "line the first level that succeeds writes its counter onto the larger ones."
    ),
    run=run,
    judge=rule,
    figure=figure,
)
