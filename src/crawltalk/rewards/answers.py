"""Where the answer stands in a reply: in the last box, behind a mark, or in the last line."""

import re

THINK_END = "</think>"
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_MARK = re.compile(r"####|^\W{0,3}A:|\banswer(?:\s+is\b:?|:)", re.IGNORECASE | re.MULTILINE)
_JOINED = re.compile(r"[\s$,;.]*(?:\\text\s*\{\s*)?(?:and|or)?(?:\s*\})?[\s$,;]*", re.IGNORECASE)
"""What stands between two boxes that are one answer: `\\boxed{1} or \\boxed{2}`."""


def spoken(reply: str) -> str:
    """What a reply says when its reasoning is over: what stands behind the last `</think>`. Nothing if the
    reasoning has no end.
    """
    if THINK_END in reply:
        return reply.rpartition(THINK_END)[2]
    return "" if "<think>" in reply else reply


def boxes(text: str) -> list[tuple[int, int, str]]:
    """Start, end and content of each `\\boxed{...}` or `\\fbox{...}` that is closed, in order."""
    found = []
    position = 0
    while box := _BOX.search(text, position):
        depth, position = 1, box.end()
        while depth and position < len(text):
            if text[position] == "\\":
                position += 1
            else:
                depth += {"{": 1, "}": -1}.get(text[position], 0)
            position += 1
        if depth == 0:
            found.append((box.start(), position, text[box.end() : position - 1].strip()))
    return found


def last_box(text: str) -> str | None:
    """The content of the last box, and of those that are joined to it by no more than a comma, `and` or `or`. A box
    before other words is an answer that the reply has corrected since.
    """
    found = boxes(text)
    if not found:
        return None
    start, _, answer = found.pop()
    while found and _JOINED.fullmatch(text[found[-1][1] : start]):
        start, _, content = found.pop()
        answer = f"{content} , {answer}"
    return answer


def stated(reply: str) -> str | None:
    """The answer that a reply marks as one: its last box, else the line behind its last `####`, `A:` or `answer is`."""
    text = spoken(reply)
    if (box := last_box(text)) is not None:
        return box
    marks = list(_MARK.finditer(text))
    lines = _lines(text[marks[-1].end() :]) if marks else []
    return lines[0] if lines else None


def final_answer(reply: str) -> str:
    """The answer that a reply states, or its last line. Empty if there is none."""
    answer = stated(reply)
    return answer if answer is not None else (_lines(spoken(reply)) or [""])[-1]


def _lines(text: str) -> list[str]:
    return [_plain(line) for line in text.splitlines() if line.strip()]


def _plain(line: str) -> str:
    """Without Markdown's stars and the full stop of a sentence."""
    return line.strip("*_` \t").removesuffix(".").strip("*_` \t")
