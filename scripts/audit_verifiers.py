"""Whether the verifiers judge as they should: golds against themselves, published solutions, and the audit of each.

    python scripts/audit_verifiers.py DATA [--problems runs/small/sft/problems.jsonl] [--generators all]

DATA is a folder with gsm8k/{train,test,example_model_solutions}.jsonl (github.com/openai/grade-school-math),
math_eval/data/math_oai/test.jsonl (MATH-500) and arc_challenge/arc_challenge_test.jsonl. `--problems` audits the
scores of the tasks on a run's own problems, `--generators` those of reasoning-gym: `all`, or names between commas.
Needs `pip install 'crawltalk[rewards]'`, and for generators `'crawltalk[reasoning-gym]'`.
"""

import argparse
import json
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from crawltalk.core.jsonl import read_jsonl
from crawltalk.core.types import Problem
from crawltalk.evals.standard import LETTERS, Question, read_questions
from crawltalk.rewards import Judge, Outcome, make_verifier
from crawltalk.rewards.audit import Audit, audit, table
from crawltalk.rewards.pool import Pool
from crawltalk.rewards.problems import read_problems

SCHEMAS = [
    (
        {
            "type": "object",
            "properties": {name: {"type": kind}},
            "required": [name],
            "additionalProperties": False,
        },
        {name: value},
    )
    for name, kind, value in [
        ("city", "string", "Lyon"),
        ("age", "integer", 42),
        ("open", "boolean", True),
        ("tags", "array", ["a", "b"]),
        ("ratio", "number", 0.5),
    ]
]


def verdicts(name: str, judge: Judge, problems: Sequence[Problem], replies: Sequence[str]) -> Counter[str]:
    """Print and return how often each outcome occurs."""
    begun = time.perf_counter()
    counts = Counter(verdict.outcome.value for verdict in judge(problems, replies))
    print(f"{name}: {dict(counts)} in {time.perf_counter() - begun:.1f} s", flush=True)
    return counts


def respelt(answer: str) -> str:
    """The same answer as somebody else would write it: other fractions, no degrees, no spaces."""
    answer = re.sub(r"\\[dt]?frac", r"\\tfrac", answer)
    answer = re.sub(r"\\left|\\right|\^\\circ|\\!", "", answer)
    return re.sub(r"(?<![\\a-z]) | (?![a-z])", "", answer)


def golds(data: Path, number: Judge, math: Judge) -> None:
    """Golds as they stand, as the last line of a worked solution, in a box, and spelt otherwise."""
    for file in ("gsm8k/train.jsonl", "gsm8k/test.jsonl"):
        problems, _ = read_problems(data / file)
        worked = [
            json.loads(line)["answer"] for line in (data / file).read_text(encoding="utf-8").splitlines()
        ]
        for name, judge in (("number", number), ("math", math)):
            verdicts(f"{name}: {file}, golds", judge, problems, [problem.answer for problem in problems])
            verdicts(f"{name}: {file}, the solutions of its authors", judge, problems, worked)
    problems, _ = read_problems(data / "math_eval/data/math_oai/test.jsonl")
    answers = [problem.answer for problem in problems]
    verdicts("math: MATH-500, golds", math, problems, answers)
    verdicts(
        "math: MATH-500, golds in a box", math, problems, [rf"So it is $\boxed{{{a}}}$." for a in answers]
    )
    other = [(problem, text) for problem in problems if (text := respelt(problem.answer)) != problem.answer]
    verdicts("math: MATH-500, golds spelt otherwise", math, *zip(*other, strict=True))


def published(data: Path, judges: dict[str, Judge]) -> None:
    """Solutions of four models to GSM8K's test questions, marked right or wrong by their publishers (Cobbe et al.
    2021).
    """
    problems, replies, marks = [], [], []
    for line in (data / "gsm8k/example_model_solutions.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        gold = row["ground_truth"].rpartition("A:")[2].strip()
        for solution in (value for value in row.values() if isinstance(value, dict)):
            problems.append(Problem(prompt=row["question"], answer=gold, task="gsm8k"))
            replies.append(solution["solution"])
            marks.append(solution["is_correct"])
    for name, judge in judges.items():
        found = [verdict.outcome == Outcome.CORRECT for verdict in judge(problems, replies)]
        agreed = sum(mark == right for mark, right in zip(marks, found, strict=True))
        print(
            f"{name}: {agreed} of {len(marks)} published solutions as marked, {sum(marks)} of them right",
            flush=True,
        )


def choices(path: Path) -> list[Problem]:
    """Questions with lettered choices."""
    rows = [row for row in read_questions(path, choices=True) if isinstance(row, Question)]
    return [
        Problem(
            prompt="\n".join([row.text, *map("{}. {}".format, LETTERS, row.choices)]),
            answer=LETTERS[row.choices.index(row.answer)],
            task="choice",
        )
        for row in rows
    ]


def audits(data: Path, count: int, judges: Callable[[str], Pool]) -> list[Audit]:
    """The audit of each verifier by name."""
    rng = random.Random(0)
    gsm8k = rng.sample(read_problems(data / "gsm8k/test.jsonl")[0], count)
    math500 = rng.sample(read_problems(data / "math_eval/data/math_oai/test.jsonl")[0], count)
    arc = rng.sample(choices(data / "arc_challenge/arc_challenge_test.jsonl"), count)
    schemas = [
        Problem(prompt=f"JSON please, {n}.", answer=json.dumps(rules), task="schema")
        for n, (rules, _) in enumerate(SCHEMAS)
    ]
    values = {json.dumps(rules): json.dumps(value) for rules, value in SCHEMAS}
    found = []
    for name, on, problems, more in [
        ("number", "GSM8K", gsm8k, {}),
        ("math", "GSM8K", gsm8k, {}),
        ("math", "MATH-500", math500, {}),
        ("exact", "GSM8K", gsm8k, {}),
        ("choice", "ARC", arc, {}),
        ("schema", "five schemas", schemas, {"right": lambda problem: values[problem.answer]}),
        ("number + 0.2 * think", "GSM8K", gsm8k, {"write": "<think>So it is.</think>{}".format}),
        ("math + 0.1 * boxed", "MATH-500", math500, {"write": r"It is $\boxed{{{}}}$".format}),
    ]:
        with judges(name) as judge:
            found.append(audit(f"{name}, {on}", judge, problems, **more))
        print(f"{found[-1].verifier}: {'; '.join(found[-1].faults) or 'no faults'}", flush=True)
    return found


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--problems", type=Path)
    parser.add_argument("--generators")
    parser.add_argument("--count", type=int, default=200, help="problems of a file in an audit")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()

    def judges(name: str) -> Pool:
        return Pool(make_verifier(name), options.workers)

    with judges("number") as number, judges("math") as math:
        golds(options.data, number, math)
        published(options.data, {"number": number, "math": math})
    found = audits(options.data, options.count, judges)
    if options.problems:
        kinds: dict[str, list[Problem]] = defaultdict(list)
        for problem in read_jsonl(options.problems, Problem):
            kinds[problem.task].append(problem)
        with judges("task") as task:
            found += [
                audit(f"task, {kind}", task, problems[: options.count]) for kind, problems in kinds.items()
            ]
    if options.generators:
        from reasoning_gym.factory import DATASETS

        from crawltalk.rewards.reasoning_gym import audit_generator

        names = sorted(DATASETS) if options.generators == "all" else options.generators.split(",")
        for name in names:
            try:
                found.append(audit_generator(name))
            except RuntimeError as error:
                print(f"{name}: {error}")
                continue
            print(f"{name}: {'; '.join(found[-1].faults) or 'no faults'}", flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
