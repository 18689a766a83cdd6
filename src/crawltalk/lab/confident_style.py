"""How sure an assistant sounds, and how sure it is, where it is right and where it makes things up."""

import re
from collections.abc import Sequence

from crawltalk.chat.messages import Message
from crawltalk.engine import Engine, Sampling, load_engine
from crawltalk.evals.factuality import question_of
from crawltalk.lab.chains import mean
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, means_of, verdict_of
from crawltalk.lab.journeys import MODEL, bar_chart, journey
from crawltalk.lab.style_not_knowledge import WORDS, asked, styled
from crawltalk.models import model_of_run
from crawltalk.posttraining.factuality import Question
from crawltalk.tasks.judging import agreement, judge
from crawltalk.tasks.scoring import is_refusal

SAMPLES, TEMPERATURE = 6, 0.7
HEDGE = re.compile(r"\b(maybe|perhaps|probably|possibly|might|not sure|i think|i believe|i guess)\b", re.IGNORECASE)
MOST_HEDGED, LEAST_TOLD = 0.02, 0.8


def run(trial: Trial) -> Figures:
    """Of right answers and of wrong ones: those that hedge or decline, how probable their tokens are, how well samples
    agree; and how well each tells right from wrong.
    """
    made = journey(trial)
    plain = styled(trial, made)
    groups = asked(made, plain)
    rows = [*groups["often"], *groups["rarely"], *groups["never"]]
    engine = load_engine(model_of_run(plain, "assistant"))
    prompts = [
        engine.chat_prompt([Message("user", question_of(row, index))])[0] for index, row in enumerate(rows)
    ]
    replies = engine.generate(prompts, Sampling(temperature=0.0, max_tokens=WORDS))
    said = [engine.tokenizer.decode(reply) for reply in replies]
    right = [judge(row.answer, one) == "correct" for row, one in zip(rows, said, strict=True)]
    hedged = [is_refusal(one) or HEDGE.search(one) is not None for one in said]
    signals = {
        "length": [float(-len(reply)) for reply in replies],
        "probability": _probabilities(engine, prompts, replies),
        "agreement": _agreements(engine, prompts, rows, trial.seed),
    }
    figures: Figures = {"right": sum(right), "wrong": len(right) - sum(right)}
    for name, of in (("right", right), ("wrong", [not one for one in right])):
        figures[f"hedged {name}"] = mean([one for one, chosen in zip(hedged, of, strict=True) if chosen])
        for signal, values in signals.items():
            figures[f"{signal} {name}"] = mean([one for one, chosen in zip(values, of, strict=True) if chosen])
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
