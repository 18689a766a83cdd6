"""Small stores of labels."""

import threading
from pathlib import Path

from crawltalk.chat.messages import Message
from crawltalk.labels import LabelStore
from crawltalk.labels.rows import NewPrompt, prompt_id


def asked(text: str) -> list[Message]:
    return [Message("user", text)]


def replied(text: str) -> list[Message]:
    return [Message("assistant", text)]


def store_with(
    folder: Path, replies: dict[str, list[str]]
) -> tuple[LabelStore, dict[str, str], dict[str, str]]:
    """A store with these prompts and replies to them, and the ids of both by their texts."""
    store = LabelStore(folder)
    rows = [NewPrompt(asked(text), [replied(one) for one in them], "tiny") for text, them in replies.items()]
    store.add_prompts("batch", rows, "test")
    prompts = {text: prompt_id(asked(text)) for text in replies}
    candidates = {
        str(one.reply[0].content): one.id for prompt in prompts.values() for one in store.candidates(prompt)
    }
    return store, prompts, candidates


def give_thumbs(folder: str, process: int, threads: int, count: int) -> None:
    """Thumbs by several threads of one process at once, each with a name of its own, and one name that all share."""

    def work(thread: int) -> None:
        store = LabelStore(folder)
        for number in range(count):
            store.thumb(asked(f"question {number}"), replied("yes"), f"{process}.{thread}", up=True)
            store.thumb(asked(f"question {number}"), replied("yes"), "shared", up=number % 2 == 0)

    working = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
    for thread in working:
        thread.start()
    for thread in working:
        thread.join()
