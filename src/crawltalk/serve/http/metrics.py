"""Metrics for Prometheus: requests and their times, and the figures of the engines (`Service.stats`)."""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from crawltalk.engine.service import Service

_FIRST_TOKEN_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_EACH_TOKEN_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
_GAUGES = {"running", "waiting", "blocks", "blocks_used"}
"""Figures of an engine that go up and down; the others are counters."""


class Metrics(Collector):
    """The metrics of one server, in a registry of its own."""

    def __init__(self, models: Mapping[str, Service]) -> None:
        self.models = models
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "crawltalk_requests", "Requests, by route and status", ("route", "status"), registry=self.registry
        )
        self.first_token = Histogram(
            "crawltalk_time_to_first_token_seconds",
            "From submission to the first token",
            ("model",),
            registry=self.registry,
            buckets=_FIRST_TOKEN_SECONDS,
        )
        self.each_token = Histogram(
            "crawltalk_time_per_token_seconds",
            "Mean of a reply's tokens after its first",
            ("model",),
            registry=self.registry,
            buckets=_EACH_TOKEN_SECONDS,
        )
        self.registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """The engines' figures, at the time of the call."""
        names: dict[Service, str] = {}
        for name, service in self.models.items():
            names.setdefault(service, name)  # two names may have one engine
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for service, name in names.items():
            for figure, value in service.stats().items():
                kind = GaugeMetricFamily if figure in _GAUGES else CounterMetricFamily
                help_text = f"Of the engine: {figure.replace('_', ' ')}"
                family = families.setdefault(
                    figure, kind(f"crawltalk_{figure}", help_text, labels=("model",))
                )
                family.add_metric((name,), value)
        return families.values()

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
