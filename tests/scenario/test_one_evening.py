"""One scenario file, played by stations of each OCPP version: the same record of it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from agent.demo import EVENING
from agent.domain.session import Session, SessionPhase
from agent.simulator.scenario_file import forced_to, load_scenario
from tests.support.yard import yard

EXAMPLE = Path(__file__).with_name("one_evening.toml")
STATIONS = [
    {"id": "CP-01", "max_kw": 200.0, "fallback_kw": 4.0, "outlets": 2},
    {"id": "CP-02", "max_kw": 120.0, "fallback_kw": 4.0},
]
POWER_KW = 60.0
LATE = timedelta(seconds=40)  # simulated; an eighth of a second of real time
ENERGY_SHARE = 0.05
SOC_PERCENT = 1.0


async def evening(folder: Path, version: str) -> dict[str, Session]:
    """Play the example with all stations of one version; the sessions by vehicle."""
    folder.mkdir()
    scenario = forced_to(load_scenario(EXAMPLE, EVENING), version)
    async with yard(folder, stations=STATIONS, speed=300.0) as place:
        place.expect(scenario, POWER_KW)
        await place.play(scenario)
        found = place.sessions()
    assert {item.ocpp_version.removeprefix("ocpp") for item in found} == {version}
    assert len(found) == len(scenario.vehicles)
    return {str(item.mac): item for item in found}


def facts(item: Session) -> tuple[object, ...]:
    """What must be equal, whatever the version."""
    return (
        item.station_id,
        item.evse_id,
        item.phase,
        item.vehicle_id,
        item.mac,
        item.match,
        item.schedule_id,
        item.stop_reason,
        [(part.reason, part.estimated, part.is_open) for part in item.transactions],
    )


@pytest.mark.slow
async def test_the_same_evening_leaves_the_same_record_in_every_version(
    tmp_path: Path,
) -> None:
    """Equal but for ids and version; times, energy and SoC as near as meters are."""
    expected = await evening(tmp_path / "1.6", "1.6")

    for version in ("2.0.1", "2.1"):
        played = await evening(tmp_path / version, version)
        for mac, session in played.items():
            other = expected[mac]

            assert facts(session) == facts(other)
            assert session.phase is SessionPhase.ENDED
            for one, two in (
                (session.plugged_at, other.plugged_at),
                (session.started_at, other.started_at),
                (session.ended_at, other.ended_at),
            ):
                assert one is not None
                assert two is not None
                assert abs(one - two) < LATE
            energy_wh = other.meter.energy_wh
            assert abs(session.meter.energy_wh - energy_wh) < energy_wh * ENERGY_SHARE
            for found, wanted in (
                (session.meter.soc_first, other.meter.soc_first),
                (session.meter.soc_percent, other.meter.soc_percent),
            ):
                assert found is not None
                assert wanted is not None
                assert abs(found - wanted) < SOC_PERCENT
