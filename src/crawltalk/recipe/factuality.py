"""Asking the base model what it knows: `[factuality]`."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Factuality:
    """The base model is asked about pages of its corpus. Fine-tuning then teaches the assistant to answer what the
    base model knows, and to decline what it does not (Llama Team 2024, section 4.3.6).
    """

    samples: int = 0
    """Answers to each question. 0: there is no such stage, and fine-tuning declines titles that were never read."""
    base: str = field(default="", metadata={"derived": True})
    """That of `sft`: a model from elsewhere, which is asked instead of the run's own."""
    facts: int = 150
    """Of a model from elsewhere: questions each about names that the documents mention often, rarely and never, at
    most; a third of them for the test.
    """
    temperature: float = 0.7
    rarely: int = 500
    never: int = 800
    """Pages that were read a few times, and pages that were never read: so many are asked about for fine-tuning, at
    most. Half of the held-out pages in any case.
    """
    max_tokens: int = 32
    """Longest answer, in tokens."""
    teach: bool = True
    """Flagships are answered even if the base model gets them wrong each time: the assistant is to know them. Otherwise
    they are declined, too.
    """
    judge: str = ""
    """An OpenAI-compatible endpoint, such as http://localhost:8000/v1, that judges what the rules call wrong. Its key
    is in the environment variable OPENAI_API_KEY. "": the rules alone.
    """
    judge_model: str = ""
    """The model there, "" for the first that it lists."""
