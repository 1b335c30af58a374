"""Prometheus text of the daemon; labels come from configuration only (faults.md L4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One value with its labels."""

    name: str
    help: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()
    is_counter: bool = False


class _Collected(Collector):
    def __init__(self, read: Callable[[], Iterable[Sample]]) -> None:
        self._read = read

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for sample in self._read():
            kind = CounterMetricFamily if sample.is_counter else GaugeMetricFamily
            family = families.get(sample.name)
            if family is None:
                names = [name for name, _ in sample.labels]
                family = kind(f"depot_agent_{sample.name}", sample.help, labels=names)
                families[sample.name] = family
            family.add_metric([value for _, value in sample.labels], sample.value)
        return families.values()


def text_of(read: Callable[[], Iterable[Sample]]) -> bytes:
    """Write the samples as Prometheus text."""
    registry = CollectorRegistry()
    registry.register(_Collected(read))
    return generate_latest(registry)
