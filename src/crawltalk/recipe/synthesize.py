"""Questions and answers from the documents: `[synthesize]`."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Synthesize:
    """Questions and answers made from the documents. A run that has them answers from its pages and cites them."""

    questions: int = 0
    """The most questions; without any, the run does not have this stage."""
    model: str = ""
    """Who writes them: nobody (templates over titles and definitions), a model of `crawltalk import` or a folder in
    Hugging Face's layout, or the address of an OpenAI-compatible endpoint (http://localhost:8000/v1). Its key is
    read from the environment: OPENAI_API_KEY.
    """
    endpoint_model: str = ""
    """The name of the model at that address."""
    test_share: float = 0.2
    """Of the documents: their questions are for evaluation and never trained on."""
