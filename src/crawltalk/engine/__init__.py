"""The one decoder: all code that generates (generate, chat, serve, evals) goes through `Engine`."""

from crawltalk.engine.engine import Engine
from crawltalk.engine.load import load_engine
from crawltalk.engine.sampling import Sampling
from crawltalk.engine.sequence import PromptEmbeddings

__all__ = ["Engine", "PromptEmbeddings", "Sampling", "load_engine"]
