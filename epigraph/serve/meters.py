"""What Prometheus reads at /metrics: requests, tokens, seconds, and the backend's load. Names of users or prompts are not in it.
It counts all keys together, so where there are keys only those may read it that are allowed to (``metrics`` in ``keys.py``).

A registry of its own: two servers in one process do not mix.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
RISING = (
    "hits",
    "misses",
    "evictions",
    "loads",
    "steps",
    "computed",
    "reused",
    "generated",
    "labelled",
    "preempted",
    "finished",
)
"""Numbers of the load that only rise."""


class Loads(Collector):
    """Numbers that are asked for when Prometheus asks."""

    def __init__(self, sources: Callable[[], dict[str, float]]) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """One metric a number."""
        for name, value in self._sources().items():
            rises = name.endswith(RISING)
            kind = CounterMetricFamily if rises else GaugeMetricFamily
            yield kind(f"epigraph_{name}", f"{name.replace('_', ' ')} of the engine", value=value)


class Meters:
    """The server's own counts."""

    def __init__(self, sources: Callable[[], dict[str, float]]) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.requests = Counter("epigraph_requests", "requests answered", ["route", "status"], registry=own)
        self.seconds = Histogram(
            "epigraph_request_seconds", "seconds to the end of the answer", ["route"], buckets=SECONDS, registry=own
        )
        self.first = Histogram(
            "epigraph_first_token_seconds", "seconds to the first piece of an answer", buckets=SECONDS, registry=own
        )
        self.tokens = Counter("epigraph_tokens", "tokens by kind: prompt, virtual, completion", ["kind"], registry=own)
        self.refused = Counter("epigraph_refused", "requests refused, by code", ["code"], registry=own)
        self.gone = Counter("epigraph_clients_gone", "clients that left before their answer", registry=own)
        self.registry.register(Loads(sources))

    def spend(self, prompt: int, virtual: int, completion: int) -> None:
        """Count the tokens of a request."""
        for kind, count in (("prompt", prompt), ("virtual", virtual), ("completion", completion)):
            self.tokens.labels(kind).inc(count)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return bytes(generate_latest(self.registry))


def numbers(load: Any) -> dict[str, float]:
    """The numbers of a backend's load, whatever they are called."""
    found = dataclasses.asdict(load) if dataclasses.is_dataclass(load) and not isinstance(load, type) else {}
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
