"""Prompts by which a base model, which only continues documents, answers: the document is one in which an
answer comes next.
"""

from collections.abc import Sequence

PERSON, ASSISTANT = "Person:", "Assistant:"
INTRODUCTION = (
    "This is a conversation between a person and a helpful assistant that gives short, true answers.\n\n"
)


def page_prompt(title: str) -> str:
    """The beginning of a page whose next line says what its title is."""
    return f"{title}\n"


def few_shot(examples: Sequence[tuple[str, str]], question: str) -> str:
    """Lines of `question: answer`, the last one open (in-context learning; Brown et al. 2020, section 2)."""
    return "".join(f"{example}: {answer}\n" for example, answer in examples) + f"{question}:"


def as_assistant(turns: Sequence[tuple[str, str]], question: str) -> str:
    """A transcript in which an assistant's turn comes next: an assistant without any fine-tuning (Askell et
    al. 2021, section 2).
    """
    talk = "".join(f"{PERSON} {message}\n{ASSISTANT} {reply}\n\n" for message, reply in turns)
    return f"{INTRODUCTION}{talk}{PERSON} {question}\n{ASSISTANT}"


def first_line(reply: str) -> str:
    """The answer: the model may continue the document after it."""
    return (reply.strip().splitlines() or [""])[0]
