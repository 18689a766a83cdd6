"""What a fine-tuning would learn of a file of conversations: `crawltalk show mask`."""

import json
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crawltalk.core.errors import BadInput
from crawltalk.models import model_folder
from crawltalk.run.console import console

if TYPE_CHECKING:
    from crawltalk.chat.messages import Conversation
    from crawltalk.chat.render import ChatRenderer

LEARNED, READ = "black on bright_green", "dim"
OPENS, CLOSES = "⟦", "⟧"
"""Around what is learned, where there are no colours."""


def show_mask(path: Path, model: str, rows: int, find: str | None, as_json: bool) -> None:
    """The tokens of the first conversations of a file, marked by whether they are learned, and why rows are refused.

    All rows are read for the counts at the end. With `as_json`: one line for each conversation of each row.
    """
    from crawltalk.chat.render import ChatRenderer
    from crawltalk.model.config import read_config, shape_of
    from crawltalk.posttraining.formats import read_conversations
    from crawltalk.posttraining.mixture import describe

    folder = model_folder(model)
    chat, context = ChatRenderer.load(folder), shape_of(read_config(folder), folder).context
    shown, reasons, counts = 0, Counter[str](), Counter[str]()
    for row in read_conversations(path):
        counts["rows"] += 1
        found: list[dict[str, Any]] = [_lesson(row.number, one, chat, context) for one in row.items]
        if row.reason is not None:
            found = [{"row": row.number, "reason": row.reason}]
        for lesson in found:
            counts["refused" if "reason" in lesson else "conversations"] += 1
            reasons.update([lesson["reason"]] if "reason" in lesson else [])
            counts["learned"] += lesson.get("learned", 0)
            counts["tokens"] += len(lesson.get("tokens", ()))
            if as_json:
                lesson.pop("pieces", None)
                print(json.dumps(lesson, ensure_ascii=False))
            elif shown < rows and (find is None or find.lower() in _text(lesson).lower()):
                _print(lesson)
                shown += 1
    if as_json:
        return
    console.rule(characters="-")
    share = counts["learned"] / max(1, counts["tokens"])
    console.print(
        f"conversations: {counts['conversations']:,}, in {counts['rows']:,} rows; {counts['tokens']:,} tokens, "
        f"{counts['learned']:,} of them ({share:.0%}) learned",
        markup=False,
        soft_wrap=True,
    )
    if counts["refused"]:
        console.print(f"{counts['refused']:,} refused: {describe(reasons)}", markup=False, soft_wrap=True)


def _lesson(number: int, conversation: "Conversation", chat: "ChatRenderer", context: int) -> dict[str, Any]:
    """The tokens of a conversation with what is learned, or why it is refused."""
    from crawltalk.posttraining.masks import make_lesson

    try:
        lesson = make_lesson(conversation, chat, context)
    except BadInput as error:
        return {"row": number, "reason": str(error)}
    ids, mask = lesson.rendered
    tokens = [
        {"id": index, "text": chat.tokenizer.decode([index]), "learned": learned}
        for index, learned in zip(ids, mask, strict=True)
    ]
    pieces = [
        (learned, chat.tokenizer.decode([ids[place] for place, _ in run]))
        for learned, run in groupby(enumerate(mask), key=lambda item: item[1])
    ]
    cut = {"messages_cut": lesson.cut} if lesson.cut else {}
    return {"row": number, "learned": sum(mask), "tokens": tokens, "pieces": pieces, **cut}


def _text(lesson: dict[str, Any]) -> str:
    return lesson.get("reason") or "".join(text for _, text in lesson["pieces"])


def _print(lesson: dict[str, Any]) -> None:
    """One conversation: its pieces, whole characters each."""
    from rich.text import Text

    from crawltalk.core.printable import harmless

    console.rule(characters="-")
    number = lesson["row"]
    if "reason" in lesson:
        console.print(
            f"row {number}: refused: {lesson['reason']}", style="yellow", markup=False, soft_wrap=True
        )
        return
    cut = f"; {lesson['messages_cut']} messages at the end do not fit" if "messages_cut" in lesson else ""
    console.print(
        f"row {number}: {len(lesson['tokens'])} tokens, {lesson['learned']} learned{cut}", markup=False
    )
    coloured = console.color_system is not None and not console.no_color
    text = Text()
    for learned, raw in lesson["pieces"]:
        piece = harmless(raw)
        if coloured:
            text.append(piece, style=LEARNED if learned else READ)
        else:
            text.append(f"{OPENS}{piece}{CLOSES}" if learned else piece)
    console.print(text, soft_wrap=True)
