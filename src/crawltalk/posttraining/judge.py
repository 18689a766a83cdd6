"""Judges of factual replies: rules, and a model behind an OpenAI-compatible endpoint for what the rules call wrong."""

import re
from collections.abc import Callable, Sequence

from crawltalk import recipe
from crawltalk.chat.endpoint import Endpoint
from crawltalk.chat.messages import Message
from crawltalk.tasks.judging import Verdict, judge
from crawltalk.tasks.refusal import REPLIES

Judge = Callable[[str, str, str], Verdict]
"""(subject, right answer, reply) -> verdict."""
INSTRUCTION = (
    "You grade an answer to the question what something is. Compare it with the right answer. Reply with one word: "
    "CORRECT if it says the same, even in other words; DECLINED if it says that it does not know; INCORRECT if it "
    "says anything else."
)
_WORDS: dict[str, Verdict] = {"CORRECT": "correct", "DECLINED": "declined", "INCORRECT": "incorrect"}


def make_judge(config: recipe.Factuality) -> Judge:
    """The rules, or the rules and then the endpoint that the recipe names."""
    return EndpointJudge(config.judge, config.judge_model) if config.judge else by_rules


def by_rules(subject: str, answer: str, reply: str) -> Verdict:
    """`tasks.judging.judge`; it does not look at the subject."""
    return judge(answer, reply)


class EndpointJudge:
    """Asks a model about replies that the rules call incorrect: they may be right in other words."""

    def __init__(self, url: str, model: str = "") -> None:
        """`model` "": the first that the endpoint lists. Raises UserError if it cannot be reached."""
        way_out = "judge by rules with --factuality.judge '', or start it, then run the same command again"
        self._endpoint = Endpoint(url, model, way_out=way_out)

    def __call__(self, subject: str, answer: str, reply: str) -> Verdict:
        """Raises UserError if the endpoint fails. A reply that is none of the three words counts as incorrect."""
        verdict = by_rules(subject, answer, reply)
        if verdict != "incorrect" or not reply.strip():
            return verdict
        question = f"What is {subject}?\nRight answer: {answer}\nAnswer to grade: {reply}"
        messages = [Message("system", INSTRUCTION), Message("user", question)]
        text = self._endpoint.complete(messages, max_tokens=8)
        found = re.search(r"\b(CORRECT|DECLINED|INCORRECT)\b", text.upper())
        return _WORDS[found[1]] if found else "incorrect"


def judge_error(judge: Judge, facts: Sequence[tuple[str, str]]) -> float:
    """The share of wrong verdicts on replies whose verdict is known from how they were made: of each (subject, answer)
    the answer itself, that of another subject, and that the assistant does not know.
    """
    labelled: list[tuple[str, str, str, Verdict]] = []
    for index, (subject, answer) in enumerate(facts):
        other = facts[index - 1][1]
        labelled.append((subject, answer, answer, "correct"))
        labelled.append((subject, answer, REPLIES[index % len(REPLIES)], "declined"))
        if other != answer:
            labelled.append((subject, answer, other, "incorrect"))
    wrong = sum(judge(subject, answer, reply) != truth for subject, answer, reply, truth in labelled)
    return wrong / max(1, len(labelled))
