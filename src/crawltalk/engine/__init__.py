"""The one decoder: all code that generates (generate, chat, serve, evals) goes through `Engine`."""

from crawltalk.engine.engine import BUNDLE, Engine
from crawltalk.engine.load import load_engine
from crawltalk.engine.sampling import Sampling
from crawltalk.engine.sequence import PromptEmbeddings

__all__ = ["BUNDLE", "Engine", "PromptEmbeddings", "Sampling", "load_engine"]
