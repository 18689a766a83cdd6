"""Problems of files, of reasoning-gym's generators and of environments, and who judges the replies: `[grpo.data]`.

Of each source some problems are held out: those of its `test` file, or a share drawn by the seed. What asks the same as
one of them is never trained on. A problem that leaves no room for a reply is set aside, and a verifier that fails its
audit on the problems is refused.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from crawltalk.core.errors import BadInput, BadRecipe, MissingInput
from crawltalk.core.types import Problem
from crawltalk.posttraining.mixture import Refused, describe
from crawltalk.recipe import Grpo, ProblemSource
from crawltalk.rewards import OWN, Judge, Verdict, Verifier, form_of, make_judge, make_verifier, undetermined
from crawltalk.rewards.audit import Audit, audit
from crawltalk.rewards.environments import NamedEnvironment
from crawltalk.rewards.numbers import single
from crawltalk.rewards.problems import problem_rows
from crawltalk.rewards.reasoning_gym import Generator
from crawltalk.run.stage import Progress
from crawltalk.tasks import TASKS, Split

AUDITED = 40
"""Problems of a source that its verifier is audited on, at most."""
SECONDS = 20.0
"""For one reply; some generators score slowly."""
ONE_ANSWER = 0.5
"""The share of problems with the same answer that is reported."""


@dataclass(frozen=True, kw_only=True)
class ProblemSet:
    """The problems of one source."""

    name: str
    """`Problem.task` of all of them."""
    learned: list[Problem]
    held_out: list[Problem]
    verifier: str
    own: Verifier | None = None
    """What `own` stands for in the verifier's name."""

    def problems(self, rng: random.Random, split: Split, count: int) -> Iterator[Problem]:
        """So many, drawn from those to learn from; or the first of those that are held out."""
        yield from rng.choices(self.learned, k=count) if split == "train" else self.held_out[:count]

    def judge(self, workers: int) -> AbstractContextManager[Judge]:
        """What judges replies to them."""
        return make_judge(self.verifier, workers, SECONDS, self.own)

    def audit(self, judge: Judge) -> Audit:
        """Whether the judge may reward these problems."""
        asked = (self.held_out + self.learned)[:AUDITED]
        return audit(f"{self.verifier} of {self.name}", judge, asked, write=form_of(self.verifier))


def check_sources(config: Grpo, key: str = "grpo") -> None:
    """Raise MissingInput for the first file of `[grpo.data]` that does not exist, BadRecipe for a source that is none
    or a verifier that there is not, or that nothing asks; `key` is the section.
    """
    for name, source in config.data.items():
        where = f"{key}.data.{name}"
        if name in (task.name for task in TASKS) or name == "factuality":
            raise BadRecipe(f"{where}: this is the name of a task; choose another one")
        if sum(map(bool, (source.path, source.generator, source.environment))) != 1:
            raise BadRecipe(
                f"{where} is a file, a generator or an environment; give one of them: --{where}.path FILE, "
                f"--{where}.generator basic_arithmetic, or --{where}.environment my_module:taskset"
            )
        if not source.path and (source.test or source.prompt or source.answer):
            raise BadRecipe(f"{where}: test, prompt and answer are for files; leave them out")
        for field, path in (("path", source.path), ("test", source.test)):
            if path and not Path(path).is_file():
                raise MissingInput(
                    f"{where}.{field}: there is no file {path}; give one of JSONL, JSON or Parquet"
                )
        if source.weight <= 0 or source.size < 2:
            raise BadRecipe(f"{where}: a weight is more than 0, and a size 2 or more")
        if verifier := _verifier(config, source):
            make_verifier(verifier, None if source.path else lambda *_: undetermined(""))
    if config.verifier and not any(source.path and not source.verifier for source in config.data.values()):
        raise BadRecipe(
            f"{key}.verifier judges problems of files, and there are none, since tasks have scores of their own; give "
            f"a file: --{key}.data.mine.path FILE"
        )
    if not 0 < config.validation < 1:
        raise BadRecipe(f"{key}.validation is {config.validation:g}; it is a share, between 0 and 1")


def _verifier(config: Grpo, source: ProblemSource) -> str:
    """The name of a source's verifier; empty if it follows from its problems."""
    return source.verifier or (config.verifier if source.path else OWN)


def read_sources(
    config: Grpo, fits: Callable[[Problem], bool], seed: int, progress: Progress
) -> tuple[dict[str, ProblemSet], list[Refused]]:
    """The problems of all sources by their names, equal for equal seeds, and what was set aside. `fits`: whether the
    model can read a problem and has room for a reply.

    Raises MissingInput, BadRecipe as `check_sources`, and BadInput for a source that has nothing to learn or to
    measure.
    """
    check_sources(config)
    sets: dict[str, ProblemSet] = {}
    refused: list[Refused] = []
    for name, source in config.data.items():
        own = _own(source)
        rows = own.problems() if own else problem_rows(source.path, source.prompt, source.answer)
        learned = _usable(rows, name, source.path or name, fits, refused)
        random.Random(f"{seed} {name}").shuffle(learned)
        if source.test:
            rows = problem_rows(source.test, source.prompt, source.answer)
            held_out = _usable(rows, name, source.test, fits, refused)
            held_out = random.Random(f"{seed} {name} test").sample(
                held_out, min(config.problems, len(held_out))
            )
        else:
            count = min(config.problems, max(1, round(config.validation * len(learned))))
            held_out, learned = learned[:count], learned[count:]
        asked = {problem.prompt for problem in held_out}
        learned = [problem for problem in learned if problem.prompt not in asked]
        if not learned or not held_out:
            why = Counter(one.reason for one in refused if one.file in (source.path, source.test, name))
            raise BadInput(
                f"grpo.data.{name} has {len(learned)} problems to learn from and {len(held_out)} to measure; it takes "
                f"both{'; set aside: ' if why else ''}{describe(why)}"
            )
        verifier = _verifier(config, source) or _fitting_verifier(learned + held_out)
        sets[name] = ProblemSet(name=name, learned=learned, held_out=held_out, verifier=verifier, own=own)
        _tell(sets[name], progress)
    return sets, refused


def _own(source: ProblemSource) -> Generator | NamedEnvironment | None:
    """What makes the problems, and judges the replies to them; None for a file."""
    if source.generator:
        options = tuple(sorted(source.options.items()))
        return Generator(source.generator, size=source.size, settings=options)
    return NamedEnvironment(source.environment, source.size) if source.environment else None


def _usable(
    rows: Iterable[Problem | tuple[int, Problem | str]],
    name: str,
    file: str,
    fits: Callable[[Problem], bool],
    refused: list[Refused],
) -> list[Problem]:
    """The problems that can be asked, under the name of their source; of the others the reasons go into `refused`."""
    usable = []
    for position, row in enumerate(rows, 1):
        number, found = row if isinstance(row, tuple) else (position, row)
        if isinstance(found, Problem):
            found = msgspec.structs.replace(found, task=name)
            if fits(found):
                usable.append(found)
                continue
            found = "the question is too long for the model's context with room for a reply"
        refused.append(Refused(file=file, row=number, reason=found))
    return usable


def _fitting_verifier(problems: Sequence[Problem]) -> str:
    """`number` if that can read all answers, else `math`."""
    return "number" if all(single(problem.answer) is not None for problem in problems) else "math"


def _tell(source: ProblemSet, progress: Progress) -> None:
    """What a person should know of a source before its problems are learned from."""
    progress.note(
        f"{source.name}: {len(source.learned):,} problems to learn from and {len(source.held_out):,} held out, judged "
        f"by {source.verifier}"
    )
    answers = Counter(problem.answer for problem in source.learned)
    answer, count = answers.most_common(1)[0]
    if answer and len(answers) > 1 and count > ONE_ANSWER * len(source.learned):
        share = count / len(source.learned)
        progress.warn(
            f"{source.name}: {share:.0%} of the answers are {answer!r}, so that reply alone earns as much"
        )


@contextmanager
def judge_of(
    sets: Mapping[str, ProblemSet], others: Judge, config: Grpo, workers: int, progress: Progress
) -> Iterator[Judge]:
    """What judges replies to the problems of the sources, each by its verifier, and to `others`. Raises BadRecipe for a
    verifier that fails its audit, unless the recipe says to ignore that.
    """
    with ExitStack() as stack:
        judges = {name: stack.enter_context(source.judge(workers)) for name, source in sets.items()}
        for name, source in sets.items():
            faults = source.audit(judges[name]).faults
            if faults and not config.ignore_audit:
                raise BadRecipe(
                    f"grpo.data.{name}: the verifier {source.verifier} may not reward these problems: "
                    f"{'; '.join(faults)}; name another one, or train all the same: --grpo.ignore_audit true"
                )
            for fault in faults:
                progress.warn(f"what may fool the reward of {name}: {fault}")

        def judge(problems: Sequence[Problem], replies: Sequence[str]) -> list[Verdict]:
            verdicts: dict[int, Verdict] = {}
            for task in dict.fromkeys(problem.task for problem in problems):
                own = [index for index, problem in enumerate(problems) if problem.task == task]
                found = judges.get(task, others)(
                    [problems[index] for index in own], [replies[index] for index in own]
                )
                verdicts |= dict(zip(own, found, strict=True))
            return [verdicts[index] for index in range(len(problems))]

        yield judge
