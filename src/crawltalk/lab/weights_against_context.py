"""The same facts from memory and with the fact before the question."""

import random
from collections.abc import Sequence
from itertools import product
from string import ascii_lowercase, ascii_uppercase

from crawltalk.core.charts import panels, svg
from crawltalk.lab.chains import mean
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, means_of, verdict_of
from crawltalk.lab.student import LEARN, Example, Student

ALPHABET = ascii_lowercase + ascii_uppercase
DOSES = (0, 1, 3, 10, 30)
"""Times that a fact is read in the training."""
MOST = DOSES[-1]
FACTS = 80
"""Of each dose."""
CONTEXTS = 24_000
"""That teach to read: each says what a name stands for, and asks about it; the next one says another thing."""
COUNT = 128
NAME = 2
"""Letters of a name; what is said of it is one capital letter."""
Fact = tuple[str, str]
"""A name and its value."""
LEAST_READ, LEAST_KNOWN, MOST_ONCE = 0.85, 0.8, 0.15


def run(trial: Trial) -> Figures:
    """Of the facts of each dose, how many are right from memory, with the fact in the context, and with another one
    there; and how often a context is believed that says another thing.
    """
    rng = random.Random(f"facts {trial.seed}")
    names = ["".join(letters) for letters in product(ascii_lowercase, repeat=NAME)]
    rng.shuffle(names)
    known = {dose: [_fact(rng, names.pop()) for _ in range(FACTS)] for dose in DOSES}
    lessons = [_lesson(rng, fact, names) for dose in DOSES for fact in known[dose] for _ in range(dose)]
    lessons += [_with(fact, fact) for fact in (_fact(rng, rng.choice(names)) for _ in range(CONTEXTS))]
    student = Student(trial, ALPHABET)
    rng.shuffle(lessons)
    student.study("facts", lessons, LEARN, COUNT)
    return {str(dose): _asked(student, known[dose], names, rng) for dose in DOSES}


def _lesson(rng: random.Random, fact: Fact, names: Sequence[str]) -> Example:
    """A fact from memory, half of the times behind something about another name."""
    return Example(*fact) if rng.random() < 0.5 else _with(_fact(rng, rng.choice(names)), fact)


def _with(stated: Fact, fact: Fact) -> Example:
    """A fact that is asked about behind one that is stated."""
    return Example("".join(stated) + fact[0], fact[1])


def _fact(rng: random.Random, name: str) -> Fact:
    return name, rng.choice(ascii_uppercase)


def _asked(
    student: Student, known: Sequence[Fact], names: Sequence[str], rng: random.Random
) -> dict[str, float]:
    """What the student says about these facts in each way."""
    false = [(name, rng.choice(ascii_uppercase.replace(value, ""))) for name, value in known]
    other = [_fact(rng, rng.choice(names)) for _ in known]

    def share(prompts: Sequence[str], answers: Sequence[Fact]) -> float:
        said = student.answer(prompts, max_tokens=1)
        return mean([reply.text == value for reply, (_, value) in zip(said, answers, strict=True)])

    def behind(stated: Sequence[Fact]) -> list[str]:
        return [_with(one, fact).prompt for one, fact in zip(stated, known, strict=True)]

    return {
        "memory": share([name for name, _ in known], known),
        "context": share(behind(known), known),
        "other": share(behind(other), known),
        "believed": share(behind(false), false),
        "insisted": share(behind(false), known),
    }


def rule(figures: Sequence[Figures]) -> Judgement:
    """What stands in the context is read whatever the weights hold; they hold what was read often; and where both
    differ, the context wins.
    """
    clear = [
        min(row[str(dose)]["context"] for dose in DOSES) >= LEAST_READ
        and row[str(MOST)]["memory"] >= LEAST_KNOWN
        and row["1"]["memory"] <= MOST_ONCE
        for row in figures
    ]
    believed = all(
        row[str(dose)]["believed"] > row[str(dose)]["insisted"] for row in figures for dose in DOSES
    )
    means = {dose: means_of([row[str(dose)] for row in figures]) for dose in DOSES}
    read = sum(row["context"] for row in means.values()) / len(means)
    return Judgement(
        verdict=verdict_of(clear, believed),
        effect={
            **{f"from memory, read {dose} times": means[dose]["memory"] for dose in DOSES},
            "in the context": read,
            f"a false context believed, read {MOST} times": means[MOST]["believed"],
            f"the weights insist, read {MOST} times": means[MOST]["insisted"],
            f"from memory beside another name, read {MOST} times": means[MOST]["other"],
        },
        summary=(
            f"Facts that training showed once are right from memory in {means[1]['memory']:.0%} of the cases (chance "
            f"4%), {MOST} times in {means[MOST]['memory']:.0%}; stated in the context, {read:.0%}, read or not. If the "
            f"context says another thing than {MOST} readings, {means[MOST]['believed']:.0%} of the answers follow it "
            f"and {means[MOST]['insisted']:.0%} the weights. A context about another name leaves "
            f"{means[MOST]['other']:.0%} of them right: it is copied, too."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """Right answers against the times that a fact was read, in each way."""
    ways = {
        "memory": "from memory",
        "context": "stated in the context",
        "believed": "the context says another thing, and is believed",
        "other": "another name in the context",
    }
    chart, (axes,) = panels([("times that a fact was read", "share of the answers")])
    for index, (way, about) in enumerate(ways.items()):
        for number, row in enumerate(figures):
            axes.plot(
                range(len(DOSES)),
                [row[str(dose)][way] for dose in DOSES],
                color=f"C{index}",
                linewidth=1.2,
                label=None if number else about,
            )
    axes.set_xticks(range(len(DOSES)), list(map(str, DOSES)))
    return svg(chart)


EXPERIMENT = Experiment(
    name="weights_against_context",
    claim="Knowledge in the weights is a vague recollection, knowledge in the context is working memory.",
    source="Karpathy, Deep Dive into LLMs (2025); Allen-Zhu and Li 2024, on exposures of a fact",
    prediction=(
        f"In each seed {LEAST_READ} at least of the facts are right if the context states them, for those never read "
        f"as for those read {MOST} times; from memory {LEAST_KNOWN} at least of those read {MOST} times and "
        f"{MOST_ONCE} at most of those read once. It is confirmed if a context that says another thing is followed "
        "more often than the weights, however often these have read it; else: partly, or not at this scale if no seed "
        "shows the first. Chance is 0.04. Set after a pilot of another seed."
    ),
    method=(
        f"A Transformer of 0.1 M parameters learns facts, a name of two letters and a letter, {FACTS} of each dose, "
        f"which are read 1 to {MOST} times in all, half of the times behind a fact about another name; and to read: "
        f"{CONTEXTS:,} times a name with a new meaning and the question about it. A context states one fact: among "
        "four, students of this size did not learn to find the right one. Controls: facts never read; a context that "
        "says another thing; a context about another name."
    ),
    run=run,
    judge=rule,
    figure=figure,
)
