"""Sampled values of all quirks of charger-quirks.md MTR become readings, or nothing."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.meter import MeterReading
from agent.stations.samples import (
    NUMBER_MAX,
    SAMPLES_MAX,
    read_meter_values,
    read_meter_values_2x,
)
from agent.stations.times import utc_text

from .conftest import HOSTILE, JSON_VALUES, NOW

POWER = "Power.Active.Import"
CURRENT = "Current.Import"
REGISTER = "Energy.Active.Import.Register"
FIELDS = ("value", "measurand", "unit", "phase", "location", "context", "format")


def sample(value: Any, measurand: str | None = None, **more: Any) -> dict[str, Any]:
    return {"value": value} | ({} if measurand is None else {"measurand": measurand}) | more


def meter_value(*samples: Any, at: Any = None) -> dict[str, Any]:
    return {"timestamp": at or utc_text(NOW), "sampledValue": list(samples)}


def read_one(*samples: Any) -> MeterReading:
    readings, problem = read_meter_values([meter_value(*samples)], NOW)
    assert problem is None
    assert len(readings) == 1
    return readings[0]


@pytest.mark.parametrize(
    ("written", "unit", "register_wh"),
    [
        ("1234", "Wh", 1234.0),
        ("1234", None, 1234.0),
        (1234, None, 1234.0),
        ("1.234", "kWh", 1234.0),
        (" 1,234 ", "kWh", 1234.0),
        ("1.234", "KWH", 1234.0),
        ("1234", "Hertz", 1234.0),
    ],
)
def test_a_register_is_read_in_watt_hours(
    written: Any, unit: str | None, register_wh: float
) -> None:
    """MTR-01 to MTR-05: text, numbers, commas, kWh, no unit, nonsense units."""
    more = {} if unit is None else {"unit": unit}

    assert read_one(sample(written, **more)).register_wh == pytest.approx(register_wh)
    assert read_one(sample(written, REGISTER, **more)).register_wh == pytest.approx(
        register_wh
    )


def test_a_null_measurand_means_the_energy_register() -> None:
    """RPC-05: null where an optional field should be absent."""
    value = {"value": "5", "measurand": None, "unit": None, "phase": None, "location": None}

    assert read_one(value).register_wh == 5.0


def test_all_measurands_of_one_moment_become_one_reading() -> None:
    """Offered power is kept apart from what is drawn (MTR-16)."""
    reading = read_one(
        sample("1000", REGISTER),
        sample("50", POWER, unit="kW"),
        sample("42", "SoC", unit="Percent"),
        sample("60000", "Power.Offered"),
        sample("55", POWER, unit="kW", location="Inlet"),
        sample("700", "Voltage"),
        sample("99", "Temperature"),
    )

    assert reading == MeterReading(
        at=NOW.replace(microsecond=0),
        register_wh=1000.0,
        power_w=50_000.0,
        soc_percent=42.0,
        offered_w=60_000.0,
        inlet_w=55_000.0,
    )


def test_phases_are_added_up_where_there_is_no_total() -> None:
    """MTR-10: per-phase values only, also in the style L1-N."""
    for names in (("L1", "L2", "L3"), ("L1-N", "L2-N", "L3-N")):
        reading = read_one(
            *(sample("1000", POWER, phase=name) for name in names),
            *(sample("200", phase=name) for name in names),
        )
        assert (reading.power_w, reading.register_wh) == (3000.0, 600.0)


def test_a_total_wins_over_the_sum_of_phases() -> None:
    """MTR-10: total and sum may differ; the total is the meter's own."""
    reading = read_one(
        sample("1000", POWER, phase="L1"),
        sample("2900", POWER),
        sample("100", phase="L1"),
        sample("500"),
    )

    assert (reading.power_w, reading.register_wh) == (2900.0, 500.0)


def test_currents_and_a_voltage_stand_in_for_a_missing_power() -> None:
    """AC stations without a power measurand; the neutral is no phase."""
    reading = read_one(
        sample("230", "Voltage", phase="L1-N"),
        *(sample("10", CURRENT, phase=phase) for phase in ("L1", "L2", "L3", "N")),
    )

    assert reading.power_w == 6900.0
    assert read_one(sample("400", "Voltage"), sample("100", CURRENT)).power_w == 40_000.0
    assert read_one(sample("100", CURRENT)).power_w is None


@pytest.mark.parametrize(
    "value", ["", " ", "NaN", "inf", None, [], {}, True, "12 kWh", "1.234,5"]
)
def test_a_value_that_is_no_number_is_missing_and_not_zero(value: Any) -> None:
    """MTR-01: empty = missing."""
    reading = read_one(sample(value), sample("42", "SoC"))

    assert (reading.register_wh, reading.soc_percent) == (None, 42.0)


@pytest.mark.parametrize("value", ["1e308", 1e308, "-1e308"])
@pytest.mark.parametrize("unit", ["kWh", "Wh"])
def test_no_reading_is_ever_infinite(value: Any, unit: str) -> None:
    """Units, sums over phases and products must not overflow into the account."""
    reading = read_one(
        sample(value, unit=unit),
        sample(value, POWER, unit="kW", phase="L1"),
        sample(value, POWER, unit="kW", phase="L2"),
        sample(value, "Voltage"),
        sample(value, CURRENT),
        sample(value, "Power.Offered", unit="kW"),
        sample(value, "SoC", unit="kW"),
    )

    assert all(math.isfinite(number) for number in _numbers(reading))


def test_readings_are_sorted_and_equal_times_keep_their_order() -> None:
    """MTR-14: unsorted or identical times inside one message."""
    late, early = utc_text(NOW), utc_text(NOW - timedelta(minutes=5))
    values = [
        meter_value(sample("3"), at=late),
        meter_value(sample("1"), at=early),
        meter_value(sample("4"), at=late),
        meter_value(sample("2"), at=early),
    ]

    readings, problem = read_meter_values(values, NOW)
    assert problem is None
    assert [reading.register_wh for reading in readings] == [1.0, 2.0, 3.0, 4.0]


def test_a_moment_without_samples_is_accepted_and_ignored() -> None:
    """MTR-06: an empty list is no reading."""
    assert read_meter_values([meter_value(), meter_value()], NOW) == ((), None)


def test_a_time_of_1970_is_replaced_by_ours_and_named() -> None:
    """CLK-04: the values are good, the clock is not."""
    readings, problem = read_meter_values(
        [meter_value(sample("5"), at="1970-01-01T00:00:09Z")], NOW
    )

    assert readings == (MeterReading(at=NOW, register_wh=5.0),)
    assert problem is not None


@pytest.mark.parametrize("per_message", [1, 10, 10_000])
def test_i12_of_10000_samples_the_first_thousand_are_kept(per_message: int) -> None:
    """I12: bounded, quick, and said aloud."""
    values = [
        meter_value(*(sample(str(n), "SoC") for n in range(per_message)))
        for _ in range(10_000 // per_message)
    ]
    begun = time.perf_counter()
    readings, problem = read_meter_values(values, NOW)

    assert time.perf_counter() - begun < 1.0
    assert len(readings) == min(SAMPLES_MAX // per_message or 1, len(values))
    assert problem is not None
    assert str(SAMPLES_MAX) in problem


def test_a_frame_full_of_empty_moments_makes_no_readings() -> None:
    """I12: what carries no sample must not fill the journal."""
    assert read_meter_values([{"sampledValue": []}] * 50_000, NOW)[0] == ()


@given(JSON_VALUES)
def test_rubbish_in_place_of_the_list_never_raises(rubbish: Any) -> None:
    """Every JSON type may stand where the list belongs."""
    readings, problem = read_meter_values(rubbish, NOW)

    assert len(readings) <= SAMPLES_MAX
    assert problem is not None or isinstance(rubbish, list)


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "timestamp": JSON_VALUES,
                "sampledValue": JSON_VALUES
                | st.lists(
                    st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON_VALUES))
                    | JSON_VALUES,
                    max_size=4,
                ),
            },
        )
        | JSON_VALUES,
        max_size=4,
    )
)
def test_rubbish_in_every_place_never_raises_and_never_becomes_infinite(
    rubbish: list[Any],
) -> None:
    """Property over all places of a message at once."""
    readings, _ = read_meter_values(orjson.loads(orjson.dumps(rubbish)), NOW)

    for reading in readings:
        assert reading.at <= NOW
        assert all(math.isfinite(number) for number in _numbers(reading))


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:12])
def test_one_bad_field_spoils_at_most_its_own_sample(field: str, value: Any) -> None:
    """The neighbour of a rotten sample is read all the same."""
    readings, _ = read_meter_values(
        [meter_value({**sample("7", POWER), field: value}, sample("42", "SoC"))], NOW
    )

    if field == "measurand" and value == "SoC":
        return
    assert readings[0].soc_percent == 42.0


# --- 2.x: numbers, and units that are objects ---------------------------------------


def sample_2x(
    value: Any,
    measurand: str | None = None,
    unit: str | None = None,
    multiplier: Any = None,
    **more: Any,
) -> dict[str, Any]:
    of: dict[str, Any] = {} if unit is None else {"unit": unit}
    if multiplier is not None:
        of["multiplier"] = multiplier
    return sample(value, measurand, **more) | ({"unitOfMeasure": of} if of else {})


def read_one_2x(*samples: Any) -> MeterReading:
    readings, problem = read_meter_values_2x([meter_value(*samples)], NOW)
    assert problem is None
    assert len(readings) == 1
    return readings[0]


@pytest.mark.parametrize(
    ("value", "unit", "multiplier", "register_wh"),
    [
        (1234, None, None, 1234.0),
        (1234.5, "Wh", None, 1234.5),
        (1234.5, "Wh", 0, 1234.5),
        (1.25, "kWh", None, 1250.0),
        (1.25, "kWh", 0, 1250.0),
        (1.25, "Wh", 3, 1250.0),
        (12.5, "kWh", -1, 1250.0),
        (12_500, "Wh", -1, 1250.0),
        # Lenient: text where the number belongs, and what no unit can mean.
        ("1.25", "kWh", None, 1250.0),
        ("1,25", "kWh", None, 1250.0),
        (1250, "Wh", "3", 1250.0),
        (1250, "Wh", 3.0, 1250.0),
        (1250, "Wh", True, 1250.0),
        (1250, "Wh", 99, 1250.0),
        (1250, "Wh", -99, 1250.0),
    ],
)
def test_a_2x_register_is_read_with_its_unit_and_power_of_ten(
    value: Any, unit: str | None, multiplier: Any, register_wh: float
) -> None:
    """2.0.1 part 2, UnitOfMeasureType: the value times ten to the multiplier."""
    for measurand in (None, REGISTER):
        reading = read_one_2x(sample_2x(value, measurand, unit, multiplier))
        assert reading.register_wh == pytest.approx(register_wh)


def test_all_measurands_of_a_2x_moment_become_one_reading() -> None:
    """The same measurands as in 1.6, at the same places."""
    reading = read_one_2x(
        sample_2x(1.0, REGISTER, "kWh"),
        sample_2x(5, POWER, "W", 4),
        sample_2x(42, "SoC", "Percent", location="EV"),
        sample_2x(60, "Power.Offered", "kW"),
        sample_2x(55, POWER, "kW", location="Inlet"),
        sample_2x(700, "Voltage", "V"),
    )

    assert reading == MeterReading(
        at=NOW.replace(microsecond=0),
        register_wh=1000.0,
        power_w=50_000.0,
        soc_percent=42.0,
        offered_w=60_000.0,
        inlet_w=55_000.0,
    )


def test_2x_phases_and_currents_add_up_as_in_16() -> None:
    """Per-phase powers are summed; currents and a voltage stand in for a power."""
    phases = ("L1", "L2", "L3")
    powers = (sample_2x(1, POWER, "kW", phase=name) for name in phases)
    currents = (sample_2x(100, CURRENT, "A", -1, phase=name) for name in phases)

    assert read_one_2x(*powers).power_w == 3000.0
    assert read_one_2x(sample_2x(230, "Voltage"), *currents).power_w == 6900.0


def test_the_unit_of_the_other_version_is_not_read() -> None:
    """A 2.x sample has no ``unit``; a 1.6 sample has no ``unitOfMeasure``."""
    both = sample_2x(1, REGISTER, "kWh") | {"unit": "Wh"}

    assert read_one_2x(both).register_wh == 1000.0
    assert read_one(both).register_wh == 1.0


@pytest.mark.parametrize("value", [None, "", "NaN", True, [], {}, "12 kWh"])
def test_a_2x_value_that_is_no_number_is_missing(value: Any) -> None:
    """As in 1.6: nothing is guessed."""
    reading = read_one_2x(sample_2x(value, REGISTER, "kWh"), sample_2x(42, "SoC"))

    assert (reading.register_wh, reading.soc_percent) == (None, 42.0)


@pytest.mark.parametrize("multiplier", [12, 9, 0])
@pytest.mark.parametrize("value", [1e308, -1e308, 1e11, "1e308", 10**30])
def test_no_2x_reading_leaves_the_bounds(value: Any, multiplier: int) -> None:
    """The multiplier cannot push a number past what a meter can show."""
    reading = read_one_2x(
        sample_2x(value, REGISTER, "kWh", multiplier), sample_2x(1, "SoC")
    )

    assert all(abs(number) < NUMBER_MAX for number in _numbers(reading))


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional=dict.fromkeys((*FIELDS, "unitOfMeasure"), JSON_VALUES)
            | {
                "unitOfMeasure": JSON_VALUES
                | st.fixed_dictionaries(
                    {}, optional={"unit": JSON_VALUES, "multiplier": JSON_VALUES}
                )
            },
        ),
        max_size=4,
    )
)
def test_2x_rubbish_never_raises_and_never_becomes_infinite(rubbish: list[Any]) -> None:
    """Property over all places of a sampled value."""
    readings, _ = read_meter_values_2x([meter_value(*rubbish)], NOW)

    for reading in readings:
        assert all(math.isfinite(number) for number in _numbers(reading))


@given(st.floats(0, 1e9), st.sampled_from(["Wh", "kWh"]), st.integers(-6, 6))
def test_a_multiplier_is_worth_the_same_as_moving_the_point(
    value: float, unit: str, power: int
) -> None:
    """Two spellings of one value are read as one value."""
    spelled = read_one_2x(sample_2x(value, REGISTER, unit, power)).register_wh
    moved = read_one_2x(sample_2x(value * 10.0**power, REGISTER, unit)).register_wh

    assert spelled == pytest.approx(moved)


def _numbers(reading: MeterReading) -> list[float]:
    found = (
        reading.register_wh,
        reading.power_w,
        reading.soc_percent,
        reading.offered_w,
        reading.inlet_w,
    )
    return [number for number in found if number is not None]
