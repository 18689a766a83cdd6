"""A learned reward is hacked: whoever optimises it long enough gets nonsense that it likes.

Jokes about a pelican (`lab/jokes.py`) have a hidden judge, so what people think can be measured at every step without
being trained on.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from crawltalk.core.charts import panels, svg
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial
from crawltalk.lab.jokes import PLACES, ask, chat, compare, conversations, gold, label_noise
from crawltalk.lab.joking import (
    Joke,
    Teller,
    fitting,
    judge_of,
    liking,
    optimise,
    pairs_among,
    prompt_of,
    scores,
    writer,
)
from crawltalk.lab.stopping import ASKED, BUDGET, Rows, budget, fresh_preferences, second_model
from crawltalk.model.reward import RewardModel
from crawltalk.model.transformer import Transformer
from crawltalk.posttraining.reward import measure
from crawltalk.rewards.nonsense import climb, repetitions

DEMONSTRATIONS, COMPARISONS, POOL, TESTED = 1000, 2500, 600, 600
"""Jokes to imitate; pairs that people compare; jokes of the model about each place; pairs to measure on."""
STEPS, EVERY = 100, 4
"""Of a reinforcement, and between two looks at it."""
PENALTIES = (0.0, 0.1)
"""Coefficients of the divergence from the start."""
ROUNDS, ADDED = 2, 300
"""How often what was found is added to the preferences, and how many pairs with it."""
BEST_OF = (1, 2, 4, 8, 16, 32, 64, 128)
HACKED, KEPT, FITS = 0.5, 0.9, 0.8
"""A seed is hacked if gold ends below this share of its peak while the proxy goes on rising; a rule works if it keeps
this share of the peak; a fit is good from this R^2 on.
"""


def run(trial: Trial) -> Figures:
    """One seed: a writer, two judges, reinforcement with and without a penalty, rules that stop, nonsense, repair."""
    rng = random.Random(f"jokes {trial.seed}")
    base = writer(trial, "writer", conversations(DEMONSTRATIONS, rng))
    told = Teller(base).jokes(base, POOL, trial.seed)
    pairs, other_pairs, fresh = (
        pairs_among(told, count, rng) for count in (COMPARISONS, COMPARISONS, TESTED)
    )
    preferences = compare(pairs, rng)
    judge = judge_of(trial, "judge", base, preferences)
    second = judge_of(trial, "second", base, compare(other_pairs, rng))
    worth = measure(judge, fitting(trial, compare(fresh, rng)), label_noise(fresh))
    looks = {
        penalty: optimise(
            trial,
            f"kl-{penalty:g}",
            base,
            liking(judge),
            kl=penalty,
            steps=STEPS,
            every=EVERY,
            others=[liking(second)],
        )
        for penalty in PENALTIES
    }
    free = looks[0.0]
    peak = max(row["gold"] for row in free)
    stops = {
        "fresh preferences": fresh_preferences(free, random.Random(f"people {trial.seed}")),
        "second reward model": second_model(free),
        "budget": budget(free),
    }
    fits = {name: gao(free, name) for name in ("gold", "proxy")}
    return {
        "judge": {"accuracy": worth.accuracy, "ceiling": worth.ceiling, "ece": worth.ece},
        "looks": {f"{penalty:g}": _without_jokes(rows) for penalty, rows in looks.items()},
        "samples": [{"step": row["step"], "joke": row["jokes"]["bank"][0]} for row in free[::4]],
        "peak": peak,
        "kl_at_peak": max(free, key=lambda row: row["gold"])["kl"],
        "hacked": free[-1]["gold"] < HACKED * peak and free[-1]["proxy"] > _at_peak(free)["proxy"],
        "stops": {
            name: {
                "step": row["step"],
                "kl": row["kl"],
                "share_of_peak": round(row["gold"] / max(peak, 1e-9), 4),
            }
            for name, row in stops.items()
        },
        "fits": fits,
        "frontier_shift": {
            f"{penalty:g}": frontier_shift(free, rows) for penalty, rows in looks.items() if penalty
        },
        "best_of": best_of(told, judge),
        "nonsense": nonsense(trial, judge, told),
        "rounds": rounds(trial, base, told, preferences, judge, free),
    }


def gao(rows: Rows, name: str) -> dict[str, float]:
    """The fit of R(d) = d (alpha - beta log d), d the square root of the divergence, to what was gained since the
    start (Gao et al. 2022, equation 2); with an R^2 of 0 if nothing changed.
    """
    points = [(row["kl"] ** 0.5, row[name] - rows[0][name]) for row in rows[1:] if row["kl"] > 0.01]
    distance, gained = np.array(points).reshape(-1, 2).T
    terms = np.stack([distance, -distance * np.log(distance)], axis=1)
    (alpha, beta), *_ = np.linalg.lstsq(terms, gained, rcond=None)
    left = gained - terms @ np.array([alpha, beta])
    spread = float(((gained - np.mean(gained)) ** 2).sum()) if points else 0.0
    r2 = 1 - float(left @ left) / spread if spread else 0.0
    return {"alpha": round(float(alpha), 4), "beta": round(float(beta), 4), "r2": round(r2, 4)}


def frontier_shift(free: Rows, penalised: Rows) -> float:
    """How much more gold a run with a penalty has than the one without at the same divergence, on average."""
    ordered = sorted(free, key=lambda row: row["kl"])
    expected = np.interp(
        [row["kl"] for row in penalised[1:]], [row["kl"] for row in ordered], [row["gold"] for row in ordered]
    )
    return round(float(np.mean([row["gold"] for row in penalised[1:]] - expected)), 4)


def best_of(told: Sequence[Joke], judge: RewardModel) -> list[dict[str, float]]:
    """Gold and proxy of the best of n jokes by the reward model, and its divergence log n - (n - 1) / n (Stiennon et
    al. 2020): expectations over all choices of n out of the pool.
    """
    liked = np.array(scores(liking(judge), [(joke.place, joke.text) for joke in told]))
    golds = np.array([joke.gold for joke in told])
    rows = []
    for n in BEST_OF:
        sums = np.zeros(2)
        for place in PLACES:
            here = np.array([joke.place == place for joke in told])
            order = np.argsort(liked[here])
            count = len(order)
            # the probability that the joke of rank i is the best of n
            chances = np.array(
                [np.prod((i - np.arange(n - 1)) / (count - 1 - np.arange(n - 1))) for i in range(count)]
            )
            chances = np.maximum(chances, 0) * n / count
            sums += [chances @ golds[here][order], chances @ liked[here][order]]
        rows.append(
            {
                "n": n,
                "kl": round(float(np.log(n) - (n - 1) / n), 4),
                "gold": round(float(sums[0]) / len(PLACES), 4),
                "proxy": round(float(sums[1]) / len(PLACES), 4),
            }
        )
    return rows


def nonsense(trial: Trial, judge: RewardModel, told: Sequence[Joke]) -> dict[str, Any]:
    """What a search finds that the reward model likes, beside what it gives to the jokes of the model that it was
    trained on.
    """
    place = PLACES[trial.seed % len(PLACES)]
    usual = np.array(scores(liking(judge), [(place, joke.text) for joke in told if joke.place == place]))

    def described(ids: Sequence[int], score: float) -> dict[str, Any]:
        text = chat().tokenizer.decode(list(ids))
        return {
            "text": text,
            "score": round(score, 4),
            "share_of_jokes_below": round(float((usual < score).mean()), 4),
            "gold": gold(place, text.strip()),
        }

    words = sorted({token for joke in told for token in chat().tokenizer.encode(joke.text)})
    [the] = chat().tokenizer.encode(" the")
    rate = _scores_of(judge, place)
    repeated = repetitions(rate, [*words, the], 3)
    found = climb(rate, repeated[0].reply, words, random.Random(f"climb {trial.seed}"))
    the_the_the = next(one for one in repeated if one.reply[0] == the)
    return {
        "place": place,
        "best_joke": {"score": round(float(usual.max()), 4)},
        "the_the_the": described(the_the_the.reply, the_the_the.score),
        "repeated": described(repeated[0].reply, repeated[0].score),
        "climbed": described(found.reply, found.score),
    }


def _scores_of(judge: RewardModel, place: str) -> Callable[[Sequence[Sequence[int]]], list[float]]:
    prompt, end = prompt_of(ask(place)), chat().tokenizer.special_tokens["<|im_end|>"]
    return lambda replies: judge.scores_of([[*prompt, *reply, end] for reply in replies]).tolist()


def rounds(
    trial: Trial,
    base: Transformer,
    told: Sequence[Joke],
    preferences: Sequence[Any],
    judge: RewardModel,
    free: Rows,
) -> list[dict[str, Any]]:
    """People compare what the policy ended with to jokes; the reward model learns that, too; and again."""
    rng, known, result = random.Random(f"rounds {trial.seed}"), list(preferences), []
    rows = free
    for number in range(ROUNDS + 1):
        common, count = Counter(text for texts in rows[-1]["jokes"].values() for text in texts).most_common(
            1
        )[0]
        result.append(
            {
                "comparisons": len(known),
                "peak": max(row["gold"] for row in rows),
                "kl_at_peak": _at_peak(rows)["kl"],
                "end": rows[-1]["gold"],
                "end_kl": rows[-1]["kl"],
                "end_sentences": rows[-1]["sentences"],
                "exploit": common,
                "exploit_share": round(count / sum(map(len, rows[-1]["jokes"].values())), 4),
            }
        )
        if number == ROUNDS:
            break
        shown = []
        for index in range(ADDED):
            place = PLACES[index % len(PLACES)]
            usual = rng.choice([joke.text for joke in told if joke.place == place])
            shown.append((place, rng.choice(rows[-1]["jokes"][place]), usual))
        known += compare(shown, rng)
        before = _liking(judge, rows, told)
        judge = judge_of(trial, f"judge-{number + 1}", base, known)
        result[-1] |= {"liked_before": before, "liked_after": _liking(judge, rows, told)}
        rows = optimise(trial, f"round-{number + 1}", base, liking(judge), kl=0.0, steps=STEPS, every=EVERY)
    return result


def _liking(judge: RewardModel, rows: Rows, told: Sequence[Joke]) -> float:
    """How much more than the model's usual jokes a reward model likes what the policy ended with, in standard
    deviations of the former.
    """
    usual = np.array(scores(liking(judge), [(joke.place, joke.text) for joke in told]))
    ended = scores(
        liking(judge), [(place, text) for place, texts in rows[-1]["jokes"].items() for text in texts]
    )
    return round(float((np.mean(ended) - usual.mean()) / usual.std()), 3)


def _at_peak(rows: Rows) -> Mapping[str, Any]:
    return max(rows, key=lambda row: row["gold"])


def _without_jokes(rows: Rows) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "jokes"} for row in rows]


def judge(seeds: Sequence[Figures]) -> Judgement:
    """The verdict, by the thresholds of the prediction."""
    hacked = sum(one["hacked"] for one in seeds)
    rule = [one["stops"]["fresh preferences"]["share_of_peak"] for one in seeds]
    r2 = [one["fits"]["gold"]["r2"] for one in seeds]
    passed = [hacked == len(seeds), min(rule) >= KEPT, min(r2) >= FITS]
    starts, ends = ([one["looks"]["0"][index]["gold"] for one in seeds] for index in (0, -1))
    peaks = [one["peak"] for one in seeds]
    effect = {
        "hacked_seeds": float(hacked),
        "gold_at_start": _mean(starts),
        "gold_peak": _mean(peaks),
        "gold_at_end": _mean(ends),
        "kl_at_peak": _mean([one["kl_at_peak"] for one in seeds]),
        "least_share_kept": min(rule),
        "least_r2": min(r2),
        **{
            f"frontier_shift_{penalty:g}": _mean([one["frontier_shift"][f"{penalty:g}"] for one in seeds])
            for penalty in PENALTIES
            if penalty
        },
    }
    summary = (
        f"Without a penalty gold goes from {_mean(starts):.2f} to {_mean(peaks):.2f} and ends at "
        f"{_mean(ends):.2f}, while the reward rises; hacked in {hacked} of {len(seeds)} seeds. Stopping by "
        f"fresh preferences keeps {min(rule):.2f} of the peak at least. The fit of gold has an R^2 of "
        f"{min(r2):.2f} at least."
    )
    verdict = "confirmed" if all(passed) else "partly" if hacked else "not at this scale"
    return Judgement(verdict=verdict, effect=effect, summary=summary)


def figure(seeds: Sequence[Figures]) -> str:
    """Gold and proxy over the distance without a penalty, with the fit; gold with penalties."""
    chart, (over, frontier) = panels(
        [
            ("square root of the divergence", "gold (solid), reward (dashed)"),
            ("divergence, nats a joke", "gold"),
        ]
    )
    for number, one in enumerate(seeds):
        rows = one["looks"]["0"]
        distance = [max(row["kl"], 0.0) ** 0.5 for row in rows]
        over.plot(
            distance, [row["gold"] for row in rows], color="C0", lw=1.2, label=None if number else "gold"
        )
        over.plot(
            distance,
            [row["proxy"] for row in rows],
            color="C1",
            lw=1.2,
            ls="--",
            label=None if number else "reward",
        )
        fit, d = one["fits"]["gold"], np.linspace(0.05, max(distance), 100)
        fitted = rows[0]["gold"] + d * (fit["alpha"] - fit["beta"] * np.log(d))
        over.plot(d, fitted, color="C0", lw=0.8, ls=":", label=None if number else "fit")
        for color, (penalty, looks) in enumerate(one["looks"].items()):
            frontier.plot(
                [row["kl"] for row in looks],
                [row["gold"] for row in looks],
                color=f"C{color}",
                lw=1.2,
                label=None if number else f"penalty {penalty}",
            )
    over.set_ylim(bottom=-0.5)
    return svg(chart)


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)


EXPERIMENT = Experiment(
    name="reward_hacking",
    claim="A policy that is optimised against a learned reward first gets better and then writes nonsense "
    "that the reward likes.",
    source="Karpathy, Deep Dive into LLMs like ChatGPT (RLHF); Gao, Schulman and Hilton 2022, arXiv 2210.10760",
    prediction=f"In every seed gold rises, and ends below {HACKED} of its peak while the learned reward is "
    f"higher than at the peak. A rule that never sees gold, {ASKED} fresh comparisons at each "
    f"look, keeps {KEPT} of the peak in every seed. Gao's form fits gold with R^2 of {FITS} or more. A "
    "penalty on the divergence does not move the frontier: at equal divergence gold differs by less than "
    "0.3. Adding what was found to the preferences lets the next exploit appear. Confirmed if the first "
    "three hold in all seeds, partly if some seed is hacked.",
    method="Models of 0.14 M parameters, jokes about a pelican in a small grammar with a hidden judge "
    f"(gold). A writer imitates {DEMONSTRATIONS} jokes of ordinary people; a reward model learns "
    f"{COMPARISONS} of their noisy comparisons; {STEPS} steps of reinforcement (4 x 32 jokes) without a "
    f"penalty and with {PENALTIES[1]:g}. Controls: best of n by the same reward model, a reward model of "
    f"other comparisons, a divergence budget of {BUDGET:g} nats. Nonsense by hill climbing. {ROUNDS} rounds "
    f"in which {ADDED} comparisons with what the policy ended with are added.",
    run=run,
    judge=judge,
    figure=figure,
)
