"""Models over HTTP: OpenAI's API, and a page for people."""

from crawltalk.serve.app import make_app
from crawltalk.serve.http.server import run
from crawltalk.serve.settings import Settings
from crawltalk.serve.state import Tracer

__all__ = ["Settings", "Tracer", "make_app", "run"]
