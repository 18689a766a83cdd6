"""How sure an assistant sounds where it is right and where it makes things up, and what the base model that it was made
of knows of its own knowledge.
"""

import re
from collections.abc import Sequence

from crawltalk.chat.prompts import first_line
from crawltalk.engine import Engine, Sampling, load_engine
from crawltalk.lab.chains import mean
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, means_of, verdict_of
from crawltalk.lab.figures import bar_chart
from crawltalk.lab.journeys import FOLDER, MODEL, journey
from crawltalk.lab.style_not_knowledge import FORM, WORDS, asked, opened, recalling, styled
from crawltalk.models import model_of_run
from crawltalk.tasks.judging import agreement, judge
from crawltalk.tasks.scoring import is_refusal

SAMPLES, TEMPERATURE = 6, 0.7
HEDGE = re.compile(
    r"\b(maybe|perhaps|probably|possibly|might|not sure|i think|i believe|i guess)\b", re.IGNORECASE
)
MOST_HEDGED, LEAST_FORMED, LEAST_TOLD = 0.02, 0.8, 0.8
SIGNS = ("probability", "agreement")


def run(trial: Trial) -> Figures:
    """The words of an assistant's right answers and of its wrong ones; and how often the probabilities and samples of
    either model tell right from wrong.
    """
    made = journey(trial, until="factuality")
    plain = styled(trial, made)
    groups = asked(made, plain)
    rows = [*groups["often"], *groups["rarely"], *groups["never"]]
    assistant, base = load_engine(model_of_run(plain, "assistant")), load_engine(model_of_run(made, "base"))
    prompts, pages = opened(assistant, rows), recalling(base, rows)
    replies, answers = (
        engine.generate(given, Sampling(temperature=0.0, max_tokens=WORDS, stop=stop))
        for engine, given, stop in ((assistant, prompts, ()), (base, pages, ("\n",)))
    )
    said = list(map(assistant.tokenizer.decode, replies))
    recalled = [first_line(base.tokenizer.decode(answer)) for answer in answers]
    right, knew = (
        [judge(row.answer, one) == "correct" for row, one in zip(rows, given, strict=True)]
        for given in (said, recalled)
    )
    signs = {
        "hedges": [float(not _hedges(one)) for one in said],
        "length": [float(len(reply)) for reply in replies],
        "probability": _probabilities(assistant, prompts, replies),
        "agreement": _agreements(assistant, prompts, trial.seed),
        "base probability": _probabilities(base, pages, answers),
        "base agreement": _agreements(base, pages, trial.seed, stop=("\n",)),
    }
    formed = [
        float(len(reply) < WORDS and FORM.fullmatch(f"{row.title}:{one}") is not None)
        for row, reply, one in zip(rows, replies, said, strict=True)
    ]
    figures: Figures = {"right": sum(right), "wrong": len(right) - sum(right), "base right": sum(knew)}
    for name, values in {"formed": formed, "hedged": [1 - one for one in signs["hedges"]], **signs}.items():
        for about, wanted in (("right", True), ("wrong", False)):
            figures[f"{name} {about}"] = _mean_where(values, right, wanted)
    often = len(groups["often"])  # they come first
    for name, values in signs.items():
        figures[f"told by {name}"] = told(values, right)
        figures[f"read often, told by {name}"] = told(values[:often], right[:often])
        if name.startswith("base"):
            figures[f"its own told by {name}"] = told(values, knew)
            figures[f"its own, read often, told by {name}"] = told(values[:often], knew[:often])
    return figures


def _hedges(reply: str) -> bool:
    return is_refusal(reply) or HEDGE.search(reply) is not None


def _mean_where(values: Sequence[float], right: Sequence[bool], wanted: bool) -> float:
    return mean([value for value, one in zip(values, right, strict=True) if one is wanted])


def _probabilities(
    engine: Engine, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]
) -> list[float]:
    """The mean log-probability of the tokens of each reply."""
    rows = engine.logprobs([(prompt, reply) for prompt, reply in zip(prompts, replies, strict=True)])
    return [sum(row) / max(1, len(row)) for row in rows]


def _agreements(
    engine: Engine, prompts: Sequence[Sequence[int]], seed: int, stop: tuple[str, ...] = ()
) -> list[float]:
    """The share of the most frequent reply among samples."""
    sampled = engine.generate(
        [prompt for prompt in prompts for _ in range(SAMPLES)],
        Sampling(temperature=TEMPERATURE, max_tokens=WORDS, seed=seed, stop=stop),
    )
    said = list(map(engine.tokenizer.decode, sampled))
    return [agreement(said[at : at + SAMPLES])[1] for at in range(0, len(said), SAMPLES)]


def told(values: Sequence[float], right: Sequence[bool]) -> float:
    """How often a right answer has the larger value than a wrong one, equal ones half (area under the ROC curve)."""
    ups = [value for value, one in zip(values, right, strict=True) if one]
    downs = [value for value, one in zip(values, right, strict=True) if not one]
    return mean([(up > down) + (up == down) / 2 for up in ups for down in downs])


def rule(figures: Sequence[Figures]) -> Judgement:
    """Neither right nor wrong answers hedge, and both have the form; what the base model says of the same pages tells
    them apart, and its own right answers from its own wrong ones.
    """
    clear = [
        max(row["hedged right"], row["hedged wrong"]) <= MOST_HEDGED
        and min(row["formed right"], row["formed wrong"]) >= LEAST_FORMED
        and min(row[f"{whose}told by base {sign}"] for whose in ("", "its own ") for sign in SIGNS)
        >= LEAST_TOLD
        for row in figures
    ]
    means = means_of(figures)
    return Judgement(
        verdict=verdict_of(clear),
        effect=means,
        summary=(
            f"An assistant that was taught confident answers hedges in {means['hedged wrong']:.0%} of its wrong "
            f"answers and in {means['hedged right']:.0%} of its right ones; {means['formed wrong']:.0%} and "
            f"{means['formed right']:.0%} have the form of an answer. But the base model that it was made of, asked "
            f"about the same page, answers with the more probable tokens in {means['told by base probability']:.0%} of "
            "the pairs of a right and a wrong answer of the assistant, and its samples agree more in "
            f"{means['told by base agreement']:.0%} (of its own answers {means['its own told by base probability']:.0%}"
            f" and {means['its own told by base agreement']:.0%}; chance 50%). The assistant's own probabilities tell "
            f"in {means['told by probability']:.0%}, its own samples in {means['told by agreement']:.0%}."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """How often each sign tells a right answer of the assistant from a wrong one."""
    names = {
        "hedges": "words\nthat hedge",
        "length": "length",
        "probability": "probability",
        "agreement": "samples",
        "base probability": "base model:\nprobability",
        "base agreement": "base model:\nsamples",
    }
    return bar_chart(
        {about: [row[f"told by {sign}"] for row in figures] for sign, about in names.items()},
        "right told from wrong (0.5: chance)",
    )


EXPERIMENT = Experiment(
    name="confident_style",
    claim=(
        "An assistant sounds sure of what it makes up: its words do not tell, while the samples of the model that it "
        "was made of do."
    ),
    source="Karpathy, Deep Dive into LLMs (2025); Llama Team 2024, section 4.3.6; Kadavath et al. 2022",
    prediction=(
        f"In each seed {MOST_HEDGED} at most of the assistant's wrong answers hedge or decline, as of the right ones, "
        f"and {LEAST_FORMED} at least of both have the form of an answer. Asked about the same pages, the base model "
        f"has the more probable tokens, and samples that agree more, in {LEAST_TOLD} at least of the pairs of a right "
        "and a wrong answer of the assistant, and so in the pairs of its own answers. Else: partly, or not at this "
        "scale if no seed shows it. An earlier design asked this of the assistant's own probabilities and samples, "
        "with the same thresholds: in seeds 0, 1 and 2 they told right from wrong in 56 and 53 % of the pairs, not at "
        "this scale; that the base model's samples tell its own was seen there afterwards. So of these seeds it is a "
        "repetition of what was known; the pilot is seed 100 (0.97 and 0.91 of its own answers, 0.95 and 0.95 of the "
        "assistant's), and seeds 3 and 4, which no look has been taken at, are run, too."
    ),
    method=(
        MODEL
        + "The assistant of `style_not_knowledge`, taught answers about half of the pages that it knows and no "
        "refusals, is asked about the other half and about pages read rarely or never, with the title at the beginning "
        "of its answer; the base model goes on behind the title on a line of its own. Greedy answers; the mean "
        f"log-probability of their tokens; the share of the most frequent of {SAMPLES} samples at temperature "
        f"{TEMPERATURE}. Reported beside it: the assistant's own probabilities and samples, and all of it among pages "
        "that were read often only, where having read a page tells nothing. Controls: words that hedge, and the length."
    ),
    run=run,
    judge=rule,
    figure=figure,
    shared=FOLDER,
)
