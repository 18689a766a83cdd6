"""A model as a labeler: it compares replies pair by pair, over any endpoint of OpenAI's API.

Each pair is asked twice, in both orders, since judges prefer a place (Zheng et al. 2023, section 3.4). Where the two
verdicts do not name the same reply, the pair is a tie. A JSON schema makes the verdict readable, also from a small
model. A reply's rank follows from the pairs that it wins. What the judge says goes into the store like what people say,
under the name `judge:MODEL`; `agreement.py` says how good it is.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import combinations

import msgspec

from crawltalk.chat.endpoint import Endpoint
from crawltalk.chat.messages import Message, text_of
from crawltalk.core.errors import BadInput
from crawltalk.labels.instructions import read_instructions
from crawltalk.labels.rows import JUDGE, Candidate, Prompt, Ranking, Snapshot
from crawltalk.labels.store import LabelStore

_SYSTEM = (
    "You compare two replies of an assistant to the same conversation. Judge by these instructions, and not by "
    "length or by the order in which the replies stand:\n\n{instructions}"
)
_QUESTION = (
    "{conversation}\n\n[Reply A]\n{first}\n[End of reply A]\n\n[Reply B]\n{second}\n[End of reply B]\n\n"
    'Which reply is better? Answer with JSON: {{"verdict": "A"}}, {{"verdict": "B"}} or '
    '{{"verdict": "tie"}}.'
)
_SCHEMA = {
    "type": "object",
    "properties": {"verdict": {"enum": ["A", "B", "tie"]}},
    "required": ["verdict"],
    "additionalProperties": False,
}
_FORMAT = {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": _SCHEMA}}
_VERDICT = re.compile(r"\"verdict\"\s*:\s*\"(A|B|tie)\"")
_MAX_TOKENS = 64


class Verdicts(msgspec.Struct):
    """What a judge has done."""

    labeler: str
    rankings: int = 0
    known: int = 0
    """Prompts that it had ranked before."""
    pairs: int = 0
    inconsistent: int = 0
    """Pairs whose verdict changed with the order of the replies."""
    unreadable: int = 0
    """Pairs to which one of the two answers had no verdict."""


def judge(store: LabelStore, endpoint: str, model: str, most: int | None = None) -> Verdicts:
    """Let a model rank the replies of at most `most` prompts that people have ranked. Each ranking is kept as soon as
    it is made, and none is made twice. Raises UserError if the endpoint does not answer, BadInput if nobody has
    ranked anything.
    """
    snapshot, instructions = store.snapshot(), read_instructions(store.folder)
    done = Verdicts(JUDGE + model)
    ranked = _ranked_by_people(snapshot)
    if not ranked:
        raise BadInput("nobody has ranked replies yet, so there is nothing to compare a judge with")
    mine = {
        one.prompt
        for one in snapshot.labels
        if one.labeler == done.labeler and isinstance(one.value, Ranking)
    }
    todo = [prompt for prompt in ranked if prompt not in mine]
    done.known = len(ranked) - len(todo)
    way_out = "is it running? Rankings so far are kept, and the same command goes on"
    asking = _Judge(Endpoint(endpoint, model, way_out=way_out), instructions.text)
    for prompt in todo[:most]:
        replies = [snapshot.candidates[prompt][candidate] for candidate in ranked[prompt]]
        ranks = _ranks(asking, snapshot.prompts[prompt], replies, done)
        store.add_label(prompt, done.labeler, Ranking(ranks), instructions)
        done.rankings += 1
    return done


class _Judge:
    def __init__(self, endpoint: Endpoint, instructions: str) -> None:
        self.endpoint, self.system = endpoint, Message("system", _SYSTEM.format(instructions=instructions))

    def compare(self, prompt: Prompt, first: Candidate, second: Candidate) -> int | None:
        """1: the first is better, -1: the second, 0: neither; None: no verdict."""
        conversation = "\n\n".join(f"[{one.role}]\n{_text([one])}" for one in prompt.messages)
        question = _QUESTION.format(
            conversation=conversation, first=_text(first.reply), second=_text(second.reply)
        )
        messages = [self.system, Message("user", question)]
        answer = self.endpoint.complete(messages, _MAX_TOKENS, response_format=_FORMAT)
        found = _VERDICT.findall(answer)
        return {"A": 1, "B": -1, "tie": 0}[found[-1]] if found else None


def _ranked_by_people(snapshot: Snapshot) -> Mapping[str, list[str]]:
    """Prompt -> the candidates that some person has ranked, in a fixed order."""
    ranked: dict[str, set[str]] = {}
    for label in snapshot.labels:
        if isinstance(label.value, Ranking) and not label.labeler.startswith(JUDGE):
            ranked.setdefault(label.prompt, set()).update(label.value.ranks)
    return {prompt: sorted(candidates) for prompt, candidates in ranked.items()}


def _ranks(asking: _Judge, prompt: Prompt, replies: Sequence[Candidate], done: Verdicts) -> dict[str, int]:
    """Ranks by the number of pairs that a reply wins less those that it loses; equal numbers are a tie."""
    balance = {reply.id: 0 for reply in replies}
    for one, other in combinations(replies, 2):
        there, back = asking.compare(prompt, one, other), asking.compare(prompt, other, one)
        done.pairs += 1
        if there is None or back is None:
            done.unreadable += 1
        elif there != -back:
            done.inconsistent += 1
        else:
            balance[one.id] += there
            balance[other.id] -= there
    return {id_: 1 + sum(other > mine for other in balance.values()) for id_, mine in balance.items()}


def _text(reply: Sequence[Message]) -> str:
    return "\n".join(
        "\n".join(
            [text_of(one), *(f"{call.function.name}({call.function.arguments})" for call in one.tool_calls)]
        )
        for one in reply
    )
