"""How sure an assistant sounds, and how sure it is, where it is right and where it makes things up."""

import re
from collections.abc import Sequence

from crawltalk.engine import Engine, Sampling, load_engine
from crawltalk.lab.chains import mean
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, means_of, verdict_of
from crawltalk.lab.figures import bar_chart
from crawltalk.lab.journeys import FOLDER, MODEL, journey
from crawltalk.lab.style_not_knowledge import FORM, WORDS, asked, opened, styled
from crawltalk.models import model_of_run
from crawltalk.posttraining.factuality import Question
from crawltalk.tasks.judging import agreement, judge
from crawltalk.tasks.scoring import is_refusal

SAMPLES, TEMPERATURE = 6, 0.7
HEDGE = re.compile(
    r"\b(maybe|perhaps|probably|possibly|might|not sure|i think|i believe|i guess)\b", re.IGNORECASE
)
MOST_HEDGED, LEAST_FORMED, LEAST_TOLD = 0.02, 0.8, 0.8


def run(trial: Trial) -> Figures:
    """Of right answers and of wrong ones: those that hedge or decline, how probable their tokens are, how well samples
    agree; and how well each tells right from wrong.
    """
    made = journey(trial)
    plain = styled(trial, made)
    groups = asked(made, plain)
    rows = [*groups["often"], *groups["rarely"], *groups["never"]]
    engine = load_engine(model_of_run(plain, "assistant"))
    prompts = opened(engine, rows)
    replies = engine.generate(prompts, Sampling(temperature=0.0, max_tokens=WORDS))
    said = [engine.tokenizer.decode(reply) for reply in replies]
    right = [judge(row.answer, one) == "correct" for row, one in zip(rows, said, strict=True)]
    hedged = [is_refusal(one) or HEDGE.search(one) is not None for one in said]
    formed = [
        len(reply) < WORDS and FORM.fullmatch(f"{row.title}:{one}") is not None
        for row, reply, one in zip(rows, replies, said, strict=True)
    ]
    signals = {
        "hedges": [float(not one) for one in hedged],
        "length": [float(len(reply)) for reply in replies],
        "probability": _probabilities(engine, prompts, replies),
        "agreement": _agreements(engine, prompts, rows, trial.seed),
    }
    figures: Figures = {"right": sum(right), "wrong": len(right) - sum(right)}
    for name, of in (("right", right), ("wrong", [not one for one in right])):
        figures[f"formed {name}"] = mean([one for one, chosen in zip(formed, of, strict=True) if chosen])
        figures[f"hedged {name}"] = mean([one for one, chosen in zip(hedged, of, strict=True) if chosen])
        for signal, values in signals.items():
            figures[f"{signal} {name}"] = mean(
                [one for one, chosen in zip(values, of, strict=True) if chosen]
            )
    return figures | {f"told by {signal}": told(values, right) for signal, values in signals.items()}


def _probabilities(
    engine: Engine, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]
) -> list[float]:
    """The mean log-probability of the tokens of each reply."""
    rows = engine.logprobs([(prompt, reply) for prompt, reply in zip(prompts, replies, strict=True)])
    return [sum(row) / len(row) for row in rows]


def _agreements(
    engine: Engine, prompts: Sequence[Sequence[int]], rows: Sequence[Question], seed: int
) -> list[float]:
    """The share of the most frequent reply among samples."""
    sampled = engine.generate(
        [prompt for prompt in prompts for _ in range(SAMPLES)],
        Sampling(temperature=TEMPERATURE, max_tokens=WORDS, seed=seed),
    )
    said = [engine.tokenizer.decode(reply) for reply in sampled]
    return [agreement(said[at * SAMPLES : (at + 1) * SAMPLES])[1] for at in range(len(rows))]


def told(values: Sequence[float], right: Sequence[bool]) -> float:
    """How often a right answer has the larger value than a wrong one, equal ones half (area under the ROC curve)."""
    ups = [value for value, one in zip(values, right, strict=True) if one]
    downs = [value for value, one in zip(values, right, strict=True) if not one]
    return mean([(up > down) + (up == down) / 2 for up in ups for down in downs])


def rule(figures: Sequence[Figures]) -> Judgement:
    """Neither right nor wrong answers hedge, and both have the form; probabilities and agreement tell them apart."""
    clear = [
        max(row["hedged right"], row["hedged wrong"]) <= MOST_HEDGED
        and min(row["formed right"], row["formed wrong"]) >= LEAST_FORMED
        and min(row["told by probability"], row["told by agreement"]) >= LEAST_TOLD
        for row in figures
    ]
    means = means_of(figures)
    return Judgement(
        verdict=verdict_of(clear),
        effect=means,
        summary=(
            f"An assistant that was taught confident answers hedges in {means['hedged wrong']:.0%} of its wrong "
            f"answers and in {means['hedged right']:.0%} of its right ones; {means['formed wrong']:.0%} and "
            f"{means['formed right']:.0%} have the form of an answer. But a right answer has the more probable tokens "
            f"in {means['told by probability']:.0%} of the pairs of a right and a wrong one, and its samples agree "
            f"more in {means['told by agreement']:.0%} (chance 50%; by its length {means['told by length']:.0%})."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """How often each sign tells a right answer from a wrong one."""
    names = {
        "hedges": "words that hedge",
        "length": "length",
        "probability": "probability",
        "agreement": "agreement",
    }
    return bar_chart(
        {about: [row[f"told by {sign}"] for row in figures] for sign, about in names.items()},
        "right told from wrong (0.5: chance)",
    )


EXPERIMENT = Experiment(
    name="confident_style",
    claim="An assistant sounds sure of what it makes up: words do not tell, while its probabilities and samples do.",
    source="Karpathy, Deep Dive into LLMs (2025); Kadavath et al. 2022; Wang et al. 2023, self-consistency",
    prediction=(
        f"In each seed {MOST_HEDGED} at most of the wrong answers hedge or decline, as of the right ones, and "
        f"{LEAST_FORMED} at least of both have the form of an answer; a right answer has the more probable tokens, and "
        f"samples that agree more, in {LEAST_TOLD} at least of the pairs of a right and a wrong one. Else: partly, or "
        "not at this scale if no seed shows it."
    ),
    method=(
        MODEL
        + "The assistant of `style_not_knowledge`, taught answers about half of the pages that it knows and no "
        "refusals, is asked about the other half and about pages read rarely or never, with the title at the beginning "
        f"of its answer. Greedy answers; the mean log-probability of their tokens; the share of the most frequent of "
        f"{SAMPLES} samples at temperature {TEMPERATURE}. Controls: words that hedge, and the length."
    ),
    run=run,
    judge=rule,
    figure=figure,
    shared=FOLDER,
)
