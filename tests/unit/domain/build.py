"""Builders and strategies for the domain's tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from agent.domain.curve import Curve, curve
from agent.domain.identity import Evidence, EvidenceKind, Vehicle
from agent.domain.ids import MacAddress, VehicleId
from agent.domain.plan import Plan, PowerWindow, Segment

NOW = datetime(2026, 11, 21, 18, 0, 0, tzinfo=UTC)
NOW_S = int(NOW.timestamp())
MAC_A = MacAddress("A453EE033156")
MAC_B = MacAddress("92D50A693F80")

watts = st.integers(0, 4_000_000).map(lambda tenths: tenths / 10)
"""Limits as plans carry them: 0 to 400 kW, in tenths."""


def after(seconds: float) -> datetime:
    """Tell the time so many seconds after the tests' now."""
    return NOW + timedelta(seconds=seconds)


def curves(
    *, values: st.SearchStrategy[float] = watts, steps_max: int = 12, past_s: int = 600
) -> st.SearchStrategy[Curve]:
    """Curves with steps around now, days long at most."""
    times = st.integers(NOW_S - past_s, NOW_S + 40_000)
    steps = st.tuples(times, values)
    return st.lists(steps, min_size=1, max_size=steps_max).map(curve)


def moments(*lines: Curve) -> list[float]:
    """Instants at which anything could differ: every edge, just before, just after."""
    edges = {float(at_s) for line in lines for at_s, _ in line} | {float(NOW_S)}
    around = {at_s + delta for at_s in edges for delta in (-1.0, -0.5, 0.0, 0.5, 1.0)}
    return sorted(at_s for at_s in around | {NOW_S + 10.0**6} if at_s >= NOW_S)


def a_segment(from_s: float, to_s: float, power_w: float = 10_000.0, **more) -> Segment:
    """Build a segment by seconds after now."""
    return Segment(starts_at=after(from_s), ends_at=after(to_s), power_w=power_w, **more)


def a_plan(*segments: Segment) -> Plan:
    """Build a plan of segments."""
    return Plan(segments=segments)


def a_window(**more) -> PowerWindow:
    """Build a window of 1 to 100 kW that may pause."""
    return PowerWindow(
        **{"min_w": 1000.0, "max_w": 100_000.0, "can_pause": True, **more},
    )


def a_vehicle(name: str, *macs: MacAddress, **more) -> Vehicle:
    """Build a row of the registry."""
    return Vehicle(vehicle_id=VehicleId(name), macs=frozenset(macs), **more)


def evidence_of(
    value: str, kind: EvidenceKind = EvidenceKind.MAC, *, source: str = "test"
) -> Evidence:
    """Build a piece of evidence."""
    return Evidence(kind=kind, value=value, raw=value, source=source, at=NOW)
