"""Judges of factual replies: rules, and a model behind an OpenAI-compatible endpoint for what the rules call wrong."""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from crawltalk import recipe
from crawltalk.core.errors import UserError
from crawltalk.tasks.judging import Verdict, judge
from crawltalk.tasks.refusal import REPLIES

Judge = Callable[[str, str, str], Verdict]
"""(subject, right answer, reply) -> verdict."""
INSTRUCTION = (
    "You grade an answer to the question what something is. Compare it with the right answer. Reply with one word: "
    "CORRECT if it says the same, even in other words; DECLINED if it says that it does not know; INCORRECT if it "
    "says anything else."
)
TRIES = 3
SECONDS = 60.0
"""Attempts at one request, and how long each may take."""
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
        key = os.environ.get("OPENAI_API_KEY", "")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(base_url=url.rstrip("/") + "/", headers=headers, timeout=SECONDS)
        self._model = model or self._request("GET", "models")["data"][0]["id"]

    def __call__(self, subject: str, answer: str, reply: str) -> Verdict:
        """Raises UserError if the endpoint fails. A reply that is none of the three words counts as incorrect."""
        verdict = by_rules(subject, answer, reply)
        if verdict != "incorrect" or not reply.strip():
            return verdict
        question = f"What is {subject}?\nRight answer: {answer}\nAnswer to grade: {reply}"
        messages = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": question}]
        body = {"model": self._model, "messages": messages, "temperature": 0, "max_tokens": 8}
        text = self._request("POST", "chat/completions", json=body)["choices"][0]["message"]["content"]
        found = re.search(r"\b(CORRECT|DECLINED|INCORRECT)\b", (text or "").upper())
        return _WORDS[found[1]] if found else "incorrect"

    def _request(self, method: str, path: str, **arguments: Any) -> Any:
        problem = ""
        for _ in range(TRIES):
            try:
                response = self._client.request(method, path, **arguments)
                response.raise_for_status()
                return response.json()
            except (httpx.HTTPError, ValueError) as error:
                problem = str(error)
        raise UserError(
            f"the judge at {self._client.base_url} failed {TRIES} times: {problem}; judge by rules with "
            "--factuality.judge '', or start it, then run the same command again"
        )


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
