"""Models over HTTP: OpenAI's API, and a page for people."""

from crawltalk.serve.app import Trace, make_app
from crawltalk.serve.http.server import run
from crawltalk.serve.settings import Settings

__all__ = ["Settings", "Trace", "make_app", "run"]
