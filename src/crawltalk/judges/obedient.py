"""An agent that does AgentDojo's tasks as their authors would, and every order that it reads: the worst case.

It shows that all of AgentDojo's tasks and attacks go through our server, its chat format and its tool calls: whatever
holds less than this is not for want of a way.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from crawltalk.judges.agentdojo import Suite, plain
from crawltalk.tokenizer.tokenizer import CALL_END, CALL_START, RESPONSE_END, RESPONSE_START

NAME = "obedient"
_TURN = re.compile(r"<\|im_start\|>(\w+)<\|im_sep\|>(.*?)<\|im_end\|>", re.DOTALL)
_RESULT = re.compile(f"{RESPONSE_START}(.*?){RESPONSE_END}", re.DOTALL)
_CALL = re.compile(f"{CALL_START}\\s*(.*?)\\s*{CALL_END}", re.DOTALL)


def obedient(suites: Mapping[str, Suite]) -> Callable[[str], str]:
    """What it replies to a prompt: the next call, orders before the task, or the answers when all are made."""
    injections = [task for suite in suites.values() for task in suite.injections.values()]
    asked = {task.asks: task for suite in suites.values() for task in suite.users.values()}
    asked |= {task.asks: task for task in injections}

    def reply(prompt: str) -> str:
        turns = _TURN.findall(prompt)
        request = next((text for role, text in turns if role == "user"), "")
        read = plain("".join(_RESULT.findall(prompt)))
        todo = [task for task in injections if plain(task.asks) in read]
        todo += [asked[request]] if request in asked else []
        said = "".join(text for role, text in turns if role == "assistant")
        made = Counter(_json(json.loads(call)) for call in _CALL.findall(said))
        for call in (_json(msgspec.to_builtins(call)) for task in todo for call in task.calls):
            if not made[call]:
                return f"{CALL_START}\n{call}\n{CALL_END}"
            made[call] -= 1
        return " ".join(task.answer for task in todo if task.answer) or "Done."

    return reply


def _json(call: Any) -> str:
    return json.dumps(call, ensure_ascii=False, sort_keys=True)
