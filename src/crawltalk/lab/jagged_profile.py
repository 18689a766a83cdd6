"""Whether abilities have holes: problems of equal difficulty that one model passes and fails."""

import random
from collections import defaultdict
from collections.abc import Sequence

from crawltalk.chat.messages import Message
from crawltalk.core.charts import panels, svg
from crawltalk.core.jsonl import read_jsonl
from crawltalk.core.types import Problem
from crawltalk.engine import Sampling, load_engine
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, means_of, verdict_of
from crawltalk.lab.journeys import FOLDER, MODEL, journey, results
from crawltalk.models import model_of_run
from crawltalk.tasks import score
from crawltalk.tasks.arithmetic import SUM, counted

SAMPLES = 6
"""Of each sum, at temperature 1."""
SHUFFLES = 200
MARGIN = 3
"""Steps by which one sum is harder than another."""
HOLE = 0.5
"""A harder sum is right so much more often than an easier one."""
ABILITIES = ("flagship", "identity", "arithmetic", "spelling", "spelling_new", "reading")
HARD, EASY = "flagship", "spelling_new"
LEAST_SPREAD, LEAST_HARD, MOST_EASY = 1.5, 0.9, 0.1

Item = tuple[str, int, list[bool]]
"""A sum's sign and the steps in which it is counted out, and which samples were right."""


def run(trial: Trial) -> Figures:
    """How far sums of equal difficulty differ, and how often a harder one is the easier one, against shuffled samples;
    and the scores of whole abilities.
    """
    made = journey(trial)
    problems = [
        problem
        for problem in read_jsonl(made.folder("sft") / "problems.jsonl", Problem)
        if problem.task == "arithmetic"
    ]
    engine = load_engine(model_of_run(made, "assistant"))
    prompts = [engine.chat_prompt([Message("user", problem.prompt)])[0] for problem in problems]
    replies = engine.generate(
        [prompt for prompt in prompts for _ in range(SAMPLES)],
        Sampling(temperature=1.0, max_tokens=160, seed=trial.seed),
    )
    right = [
        score(problems[index // SAMPLES], engine.tokenizer.decode(reply)) == 1.0
        for index, reply in enumerate(replies)
    ]
    items = [
        (*_difficulty(problem.prompt), right[index * SAMPLES : (index + 1) * SAMPLES])
        for index, problem in enumerate(problems)
    ]
    rng = random.Random(trial.seed)
    shuffled = [_shuffled(rng, items) for _ in range(SHUFFLES)]
    spreads = [spread(one) for one in shuffled]
    scores = results(made, "scores.json")
    return {
        "sums": len(items),
        "spread": spread(items),
        "spread shuffled": sum(spreads) / SHUFFLES,
        "largest shuffled": max(spreads),
        "holes": holes(items),
        "holes shuffled": sum(map(holes, shuffled)) / SHUFFLES,
        "items": [[sign, steps, sum(row) / SAMPLES] for sign, steps, row in items],
        "abilities": {name: scores[name]["score"] for name in ABILITIES if name in scores},
    }


def _difficulty(prompt: str) -> tuple[str, int]:
    """The sign of a sum and the lines that counting it out takes."""
    stated = SUM.search(prompt)
    assert stated is not None
    left, sign, right = stated.groups()
    return sign, counted(int(left), sign, int(right)).count("\n")


def spread(items: Sequence[Item]) -> float:
    """The variance of right samples between items of the same sign and steps, over that of a binomial distribution
    with their common share: 1 if the items are alike (Pearson's dispersion).
    """
    groups: dict[tuple[str, int], list[int]] = defaultdict(list)
    for sign, steps, row in items:
        groups[sign, steps].append(sum(row))
    total, freedom = 0.0, 0
    for counts in groups.values():
        share = sum(counts) / (len(counts) * SAMPLES)
        if len(counts) > 1 and 0 < share < 1:
            variance = SAMPLES * share * (1 - share)
            total += sum((count - SAMPLES * share) ** 2 for count in counts) / variance
            freedom += len(counts) - 1
    return total / max(1, freedom)


def holes(items: Sequence[Item]) -> float:
    """Of the pairs of the same sign of which one takes `MARGIN` steps more at least, those in which it is right more
    often, by `HOLE` at least.
    """
    shares = [(sign, steps, sum(row) / SAMPLES) for sign, steps, row in items]
    pairs = [
        harder - easier >= HOLE
        for sign, few, easier in shares
        for other, many, harder in shares
        if sign == other and many - few >= MARGIN
    ]
    return sum(pairs) / max(1, len(pairs))


def _shuffled(rng: random.Random, items: Sequence[Item]) -> list[Item]:
    """The samples of each sign and number of steps dealt anew to its items: a model without holes."""
    pools: dict[tuple[str, int], list[bool]] = defaultdict(list)
    for sign, steps, row in items:
        pools[sign, steps] += row
    for pool in pools.values():
        rng.shuffle(pool)
    return [(sign, steps, [pools[sign, steps].pop() for _ in range(SAMPLES)]) for sign, steps, _ in items]


def rule(figures: Sequence[Figures]) -> Judgement:
    """Sums of the same difficulty differ by more than chance; harder ones are sometimes the easier ones; and a task
    that looks hard is passed where an easy one is failed.
    """
    clear = [
        row["spread"] >= LEAST_SPREAD
        and row["spread"] > row["largest shuffled"]
        and row["abilities"][HARD] >= LEAST_HARD
        and row["abilities"][EASY] <= MOST_EASY
        for row in figures
    ]
    means = means_of(figures, ("spread", "spread shuffled", "largest shuffled", "holes", "holes shuffled"))
    abilities = means_of([row["abilities"] for row in figures])
    return Judgement(
        verdict=verdict_of(clear, all(row["holes"] > row["holes shuffled"] for row in figures)),
        effect=means | abilities,
        summary=(
            f"Sums that take the same steps differ {means['spread']:.1f} times as much as chance allows (shuffled: "
            f"{means['spread shuffled']:.1f}, {means['largest shuffled']:.1f} at most). Of the pairs in which one "
            f"takes {MARGIN} steps more, the harder one is clearly the easier one in {means['holes']:.0%} (shuffled "
            f"{means['holes shuffled']:.0%}). The same model describes {abilities[HARD]:.0%} of the pages that it "
            f"knows by heart and spells {abilities[EASY]:.0%} of the words that it was not taught to spell."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """Each sum by the steps that it takes, and whole abilities."""
    chart, (sums, abilities) = panels([("steps of a sum", "share of the samples right"), ("", "score")])
    for index, sign in enumerate("+-x"):
        dots = [(steps, share) for row in figures for one, steps, share in row["items"] if one == sign]
        sums.plot(
            [steps + (index - 1) / 4 for steps, _ in dots],
            [share for _, share in dots],
            "o",
            color=f"C{index}",
            markersize=4,
            alpha=0.4,
            label=sign,
        )
    means = means_of([row["abilities"] for row in figures])
    abilities.barh([name.replace("_", ", ") for name in means], list(means.values()), color="C0", alpha=0.6)
    return svg(chart)


EXPERIMENT = Experiment(
    name="jagged_profile",
    claim="Abilities have holes like a Swiss cheese: a model passes what looks hard and fails what looks easy.",
    source="Karpathy, Deep Dive into LLMs (2025), on 9.11 and 9.9; Dell'Acqua et al. 2023, the jagged frontier",
    prediction=(
        "In each seed the variance between sums that take the same steps is "
        f"{LEAST_SPREAD} times that of equal ones at least, and larger than in any of {SHUFFLES} shuffles, while "
        f"{LEAST_HARD} at least of the pages known by heart are described and {MOST_EASY} at most of new words are "
        "spelled. It is confirmed if a harder sum is also clearly the easier one more often than among shuffled ones. "
        "Else: partly, or not at this scale if no seed shows the first. Set after a look at seed 0."
    ),
    method=(
        MODEL
        + f"Its sums that were never trained on, each {SAMPLES} times at temperature 1. Equal are sums of one "
        "sign that are counted out in as many steps, however they are worded. Control: the samples of equal sums dealt "
        "anew, which is a model of the same accuracy at each difficulty without holes. Whole abilities: its scores."
    ),
    run=run,
    judge=rule,
    figure=figure,
    shared=FOLDER,
)
