"""Ranking is easier than writing: people who write ordinary jokes can still tell which of two is funnier, and so make a
model that is funnier than they are.
"""

import random
from collections.abc import Sequence

import numpy as np

from crawltalk.chat.messages import Conversation
from crawltalk.core.charts import panels, svg
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial
from crawltalk.lab.jokes import PLACES, compare, conversations, gold, label_noise
from crawltalk.lab.joking import (
    Joke,
    Teller,
    fitting,
    judge_of,
    liking,
    optimise,
    pairs_among,
    preferring,
    scores,
    writer,
)
from crawltalk.lab.stopping import budget, fresh_preferences
from crawltalk.model.transformer import Transformer
from crawltalk.posttraining.pairs import Pair
from crawltalk.posttraining.reward import measure

DEMONSTRATIONS = 1000
LABELS = (250, 2000)
"""Further jokes that people write, or pairs that they compare."""
POOL, TESTED, BEST_OF = 600, 600, 16
STEPS, EVERY = 48, 4
MARGIN = 0.3
"""Gold by which ranking is ahead."""


def run(trial: Trial) -> Figures:
    """One seed: for each number of labels the gold of a model that imitates more jokes, and of models that learn from
    comparisons, by three ways.
    """
    rng = random.Random(f"ranking {trial.seed}")
    own = conversations(DEMONSTRATIONS, rng)
    base = writer(trial, "writer", own)
    teller = Teller(base)
    told = teller.jokes(base, POOL, trial.seed)
    fresh = compare(pairs_among(told, TESTED, rng), rng)
    people = [gold(_place(joke), str(joke.messages[-1].content)) for joke in own]
    rows = []
    for labels in LABELS:
        more = writer(trial, f"wrote-{labels}", [*own, *conversations(labels, rng)])
        pairs = pairs_among(told, labels, rng)
        preferences = compare(pairs, rng)
        judge = judge_of(trial, f"judge-{labels}", base, preferences)
        dpo = preferring(trial, f"dpo-{labels}", base, preferences)
        looks = optimise(trial, f"rl-{labels}", base, liking(judge), kl=0.0, steps=STEPS, every=EVERY)
        stopped = fresh_preferences(looks, random.Random(f"people {trial.seed} {labels}"))
        rows.append(
            {
                "labels": labels,
                "wrote": _gold(teller.jokes(more, POOL // 4, trial.seed)),
                "ranked_best_of": _best_of(
                    told, scores(liking(judge), [(joke.place, joke.text) for joke in told]), rng
                ),
                "ranked_rl": stopped["gold"],
                "ranked_rl_budget": budget(looks)["gold"],
                "ranked_dpo": _gold(teller.jokes(dpo, POOL // 4, trial.seed)),
                "accuracy": measure(judge, fitting(trial, fresh)).accuracy,
            }
        )
    return {
        "people": _mean(people),
        "model": _gold(told),
        "ceiling": round(1 - label_noise(pairs), 4),
        "accuracy_of_likelihood": _accuracy_of_likelihood(teller, base, fitting(trial, fresh)),
        "rows": rows,
    }


def _place(joke: Conversation) -> str:
    return str(joke.messages[0].content).rpartition(" ")[2]


def _best_of(told: Sequence[Joke], liked: Sequence[float], rng: random.Random) -> float:
    """Gold of the joke that the reward model likes best among `BEST_OF` about the same place."""
    golds = []
    for place in PLACES:
        here = [number for number, joke in enumerate(told) if joke.place == place]
        rng.shuffle(here)
        for start in range(0, len(here) - BEST_OF + 1, BEST_OF):
            golds.append(told[max(here[start : start + BEST_OF], key=liked.__getitem__)].gold)
    return _mean(golds)


def _accuracy_of_likelihood(teller: Teller, base: Transformer, pairs: Sequence[Pair]) -> float:
    """How often a writer gives more probability to the joke that people prefer, by the mean over its tokens."""
    teller.rollouts.update_weights(base)
    asked = []
    for pair in pairs:
        for reply in pair:
            start = reply.loss_mask.index(True)
            asked.append((reply.ids[:start], reply.ids[start:]))
    means = np.array([np.mean(row) for row in teller.engine.logprobs(asked)]).reshape(-1, 2)
    return _mean(means[:, 0] > means[:, 1])


def _gold(jokes: Sequence[Joke]) -> float:
    return _mean([joke.gold for joke in jokes])


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return round(float(np.mean(values)), 4)


WAYS = {
    "wrote": "imitating more jokes",
    "ranked_dpo": "comparisons, DPO",
    "ranked_best_of": f"comparisons, best of {BEST_OF}",
    "ranked_rl": "comparisons, RL, stopped by people",
}


def judge(seeds: Sequence[Figures]) -> Judgement:
    """The verdict, by the thresholds of the prediction."""
    last = [one["rows"][-1] for one in seeds]
    ahead = [row["ranked_rl"] - row["wrote"] for row in last]
    above = [row["ranked_rl"] - one["people"] for row, one in zip(last, seeds, strict=True)]
    few = [one["rows"][0]["ranked_rl"] - one["rows"][-1]["wrote"] for one in seeds]
    effect = {
        "people": _mean([one["people"] for one in seeds]),
        "model": _mean([one["model"] for one in seeds]),
    }
    effect |= {f"{way}_{LABELS[-1]}": _mean([row[way] for row in last]) for way in WAYS}
    effect |= {
        "least_ahead": min(ahead),
        "least_above_people": min(above),
        f"{LABELS[0]}_comparisons_against_{LABELS[-1]}_jokes": _mean(few),
        "accuracy": _mean([row["accuracy"] for row in last]),
        "ceiling": _mean([one["ceiling"] for one in seeds]),
        "accuracy_of_likelihood": _mean([one["accuracy_of_likelihood"] for one in seeds]),
    }
    passed = [min(ahead) >= MARGIN and min(above) >= MARGIN, _mean(few) >= 0]
    summary = (
        f"People's own jokes have a gold of {effect['people']:.2f}. With {LABELS[-1]:,} labels a model has "
        f"{effect[f'wrote_{LABELS[-1]}']:.2f} if they wrote more jokes, and "
        f"{effect[f'ranked_rl_{LABELS[-1]}']:.2f} if they compared (best of {BEST_OF}: "
        f"{effect[f'ranked_best_of_{LABELS[-1]}']:.2f}, DPO: {effect[f'ranked_dpo_{LABELS[-1]}']:.2f}); the "
        f"reward model ranks {effect['accuracy']:.0%} as people do, of {effect['ceiling']:.0%} that could "
        f"be, and the writer's own likelihood {effect['accuracy_of_likelihood']:.0%}."
    )
    verdict = "confirmed" if all(passed) else "partly" if passed[0] else "not at this scale"
    return Judgement(verdict=verdict, effect=effect, summary=summary)


def figure(seeds: Sequence[Figures]) -> str:
    """Gold over the number of labels, by what people did and how it was learned; means over the seeds."""
    chart, (axes,) = panels([("labels", "gold")])
    for color, (way, name) in enumerate(WAYS.items()):
        golds = [_mean([one["rows"][index][way] for one in seeds]) for index in range(len(LABELS))]
        axes.plot(LABELS, golds, color=f"C{color}", lw=1.2, marker="o", ms=3, label=name)
    axes.axhline(
        _mean([one["people"] for one in seeds]), color="C7", lw=0.8, ls=":", label="people's own jokes"
    )
    axes.set_xscale("log")
    return svg(chart)


EXPERIMENT = Experiment(
    name="ranking_is_easier_than_writing",
    claim="People who rank jokes make a model that is funnier than the jokes that they write.",
    source="Karpathy, Deep Dive into LLMs like ChatGPT (RLHF: the gap between discriminating and generating)",
    prediction=f"With {LABELS[-1]:,} labels the gold of a model that was reinforced by comparisons, stopped "
    f"without seeing gold, is {MARGIN} or more above that of a model that imitates as many further jokes, "
    f"and above people's own jokes, in every seed; and {LABELS[0]} comparisons are worth as much as "
    f"{LABELS[-1]:,} jokes at least. Confirmed if both hold, partly if the first does.",
    method=f"The models and jokes of reward_hacking. A writer imitates {DEMONSTRATIONS:,} jokes. The same "
    f"people then write {', '.join(map(str, LABELS))} more, which are imitated, too; or compare as many "
    f"pairs of the writer's jokes, which a reward model learns (best of {BEST_OF}; reinforcement of up to "
    f"{STEPS} steps, stopped by fresh comparisons) or DPO. Also: how often the writer's own likelihood "
    "ranks two jokes as people do.",
    run=run,
    judge=judge,
    figure=figure,
)
