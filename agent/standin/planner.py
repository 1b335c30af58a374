"""Makes charging plans in ChargEye's shape: flat for the site, ready at departure.

Pure. The lowest site level at which everybody is as ready as under the cap is
found by halving; `filling` runs one night at one level. Powers are kW on the DC
side, energies kWh, SoC percent, moments epoch milliseconds (chargeye.md 6.3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agent.standin.filling import Outcome, Run, fill
from agent.standin.night import Load, Night, Slot
from agent.standin.physics import KNEE_SOC

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

__all__ = ["Load", "Plan", "Segment", "Slot", "make_plans", "plan_json", "to_ms"]

GRID_S = 900.0
"""ChargEye's quarter of an hour, as brief and samples have it."""
HALVINGS = 9
"""2^9: the peak is found to 0.2 % of the cap."""
HALVINGS_LARGE = 5
"""For large fleets: 3 % of the cap, so that one re-plan stays below a second."""
STEPS_SMALL_MAX = 1500
"""Vehicles times cells up to which the fine search is cheap."""
PRICE_PEAK_FACTOR = 1.25
"""Cheap hours may raise the peak by this much and no more."""
SOC_TOLERANCE = 0.005
"""Percent; what two decimals cannot show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Half-open time [from_ms, to_ms) with one power."""

    from_ms: int
    to_ms: int
    power_kw: float
    start_soc: float
    end_soc: float
    paused: bool
    limited: bool

    def json(self) -> dict[str, Any]:
        """Return the segment in ChargEye's exact letter case."""
        duration_ms = self.to_ms - self.from_ms
        is_bulk = not self.paused and self.start_soc < KNEE_SOC
        return {
            "from": self.from_ms,
            "to": self.to_ms,
            "durationMs": duration_ms,
            "powerkW": self.power_kw,
            "energykWh": round(self.power_kw * duration_ms / 3.6e6, 4),
            "startSoc": round(self.start_soc, 2),
            "endSoc": round(self.end_soc, 2),
            "paused": self.paused,
            "powerUnlimited": False,
            "powerIsBeingLimited": self.limited,
            "tag": ["bulk"] if is_bulk else [],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the planner decided for one slot."""

    segments: tuple[Segment, ...]
    end_ms: int
    end_soc: float
    energy_kwh: float
    reached: bool


def to_ms(moment: datetime) -> int:
    """Epoch milliseconds of an aware moment."""
    return round(moment.timestamp() * 1000)


def make_plans(
    slots: Sequence[Slot],
    *,
    cap_kw: float,
    now: datetime,
    grid_s: float = GRID_S,
    taken: Sequence[Load] = (),
    expensive: Sequence[tuple[datetime, datetime]] = (),
) -> dict[str, Plan]:
    """Plan all `slots` from `now` on, keyed by `schedule_id`.

    The sum of all plans and of `taken` (loads that are fixed already) stays under
    `cap_kw` wherever `taken` alone does. A slot's `start_soc` counts at its arrival
    or at `now`, whichever is later. Vehicles that can pause avoid `expensive` times
    while this costs neither readiness nor much of a peak.
    """
    night = Night.of(
        slots,
        now_ms=to_ms(now),
        grid_ms=max(1, round(grid_s * 1000)),
        taken=taken,
        expensive=[(to_ms(start), to_ms(end)) for start, end in expensive],
    )
    steps = len(slots) * max(1, len(night.cells))
    halvings = HALVINGS if steps <= STEPS_SMALL_MAX else HALVINGS_LARGE
    run = _flattest(night, cap_kw, halvings)
    if expensive:
        run = _cheaper(night, cap_kw, halvings, run)
    return {slot.schedule_id: _plan(slot, run) for slot in slots}


def plan_json(slot: Slot, plan: Plan, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the whole `plan` object; `settings` go over its settings."""
    need_kwh = max(0.0, slot.target_soc - slot.start_soc) / 100 * slot.battery_kwh
    departure_ms = to_ms(slot.departure)
    return {
        "pastSegments": [],
        "segments": [segment.json() for segment in plan.segments],
        "endTime": plan.end_ms,
        "endSoc": round(plan.end_soc, 2),
        "energyKwh": round(plan.energy_kwh, 3),
        "reachedTargetSocInSchedule": plan.reached,
        "departureMarginMs": max(0, departure_ms - plan.end_ms),
        "schedule": {
            "id": slot.schedule_id,
            "from": to_ms(slot.arrival),
            "to": departure_ms,
            "priority": 1,
            "startSoc": slot.start_soc,
            "targetSoc": slot.target_soc,
            "ev": {
                "batterySizekWh": slot.battery_kwh,
                "batteryEnergyNeedkWh": round(need_kwh, 3),
                "energyNeedkWh": round(need_kwh, 3),
                "maxPowerkW": slot.max_power_kw,
                "supportsPausing": slot.can_pause,
                "preconditioning": {
                    "batteryPreconditioningTimeMs": 0,
                    "vehiclePreconditioningTimeMs": 0,
                    "vehiclePreconditioningEnergykWh": 0,
                },
            },
            "settings": {
                "evMinPowerkW": slot.min_power_kw,
                "evMaxPowerkW": slot.max_power_kw,
                "bulkSoC": KNEE_SOC,
                "minimumSoC": 0,
                "departureMarginMinutes": slot.margin_s / 60,
                "powerRules": [],
                **settings,
            },
            "tx": {},
        },
    }


def _flattest(
    night: Night,
    cap_kw: float,
    halvings: int,
    avoiding: frozenset[str] = frozenset(),
    reference: Run | None = None,
) -> Run:
    """Lowest peak at which nobody is worse off than in the best run at the cap."""
    eager = fill(night, cap_kw, eager=True, avoiding=avoiding)
    calm = fill(night, cap_kw, eager=False, avoiding=avoiding)
    best = eager if eager.shortfall() < calm.shortfall() - SOC_TOLERANCE else calm
    if reference is None:
        reference = best
    found = [
        _halved(night, run, reference, halvings, avoiding)
        for run in (calm, eager)
        if run.is_as_ready_as(reference, SOC_TOLERANCE)
    ]
    return min(found, key=lambda run: run.peak_kw, default=best)


def _halved(
    night: Night, start: Run, reference: Run, halvings: int, avoiding: frozenset[str]
) -> Run:
    best = start
    low, high = 0.0, min(start.level_kw, start.peak_kw)
    for _ in range(halvings):
        middle = (low + high) / 2
        run = fill(night, middle, eager=start.eager, avoiding=avoiding)
        if run.is_as_ready_as(reference, SOC_TOLERANCE):
            high = middle
            best = run if run.peak_kw <= best.peak_kw else best
        else:
            low = middle
    return best


def _cheaper(night: Night, cap_kw: float, halvings: int, plain: Run) -> Run:
    """Let the most patient vehicles avoid expensive hours: all, half, a quarter."""
    patient = night.most_patient_first()
    ceiling_kw = min(cap_kw, plain.peak_kw * PRICE_PEAK_FACTOR)
    while patient:
        avoiding = frozenset(patient)
        run = _flattest(night, ceiling_kw, halvings, avoiding, reference=plain)
        if run.is_as_ready_as(plain, SOC_TOLERANCE):
            return run
        patient = patient[: len(patient) // 2]
    return plain


def _plan(slot: Slot, run: Run) -> Plan:
    outcome = run.outcomes[slot.schedule_id]
    pieces = [Segment(**piece) for piece in outcome.pieces] or _idle(slot, outcome)
    segments = _tidied(slot, pieces)
    end_ms = segments[-1].to_ms if segments else outcome.start_ms
    return Plan(
        segments=tuple(segments),
        end_ms=end_ms,
        end_soc=outcome.soc,
        energy_kwh=sum(s.power_kw * (s.to_ms - s.from_ms) / 3.6e6 for s in segments),
        reached=outcome.soc >= slot.target_soc - SOC_TOLERANCE,
    )


def _idle(slot: Slot, outcome: Outcome) -> list[Segment]:
    """One pause to the end for a full vehicle; nothing when it cannot pause."""
    if not slot.can_pause or to_ms(slot.departure) <= outcome.start_ms:
        return []
    return [
        Segment(
            from_ms=outcome.start_ms,
            to_ms=to_ms(slot.departure),
            power_kw=0.0,
            start_soc=outcome.soc,
            end_soc=outcome.soc,
            paused=True,
            limited=False,
        )
    ]


def _tidied(slot: Slot, segments: list[Segment]) -> list[Segment]:
    """Drop the pause after the last charging; join the wait before the first."""
    charging = [i for i, segment in enumerate(segments) if not segment.paused]
    if not charging:
        return [_joined(segments)] if segments else []
    segments = segments[: charging[-1] + 1]
    if slot.can_pause or charging[0] == 0:
        return segments
    return [_joined(segments[: charging[0]]), *segments[charging[0] :]]


def _joined(segments: list[Segment]) -> Segment:
    return replace(segments[0], to_ms=segments[-1].to_ms)
