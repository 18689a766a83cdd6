"""The one decoder: generate, chat, serve, evaluate and whatever else lets a model talk goes through `Engine`."""

from crawltalk.engine.engine import Engine
from crawltalk.engine.load import load_engine
from crawltalk.engine.sampling import Sampling

__all__ = ["Engine", "Sampling", "load_engine"]
