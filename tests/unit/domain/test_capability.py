"""What stations say about themselves, in all the ways they spell it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.capability import (
    PERIODS_MAX,
    PERIODS_UNKNOWN,
    QUIRKS,
    Capabilities,
    ProfileForm,
    RateUnit,
    StationTraits,
    profile_form,
    read_configuration,
    read_variables,
)
from tests.support.properties import examples

W, A = RateUnit.WATT, RateUnit.AMPERE
UNIT_KEY = "ChargingScheduleAllowedChargingRateUnit"


def _traits(*quirks: str, is_dc: bool = True, phases: int = 3) -> StationTraits:
    return StationTraits(
        rated_w=150_000.0,
        fallback_w=5000.0,
        is_dc=is_dc,
        phases=phases,
        quirks=frozenset(quirks),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Current,Power", {A, W}),
        ("Current, Power", {A, W}),
        ("[Current, Power]", {A, W}),
        ('["Current","Power"]', {A, W}),
        ("'Current','Power'", {A, W}),
        ("Current;Power", {A, W}),
        ("power", {W}),
        ("POWER ", {W}),
        ("Power", {W}),
        ("Current", {A}),
        ("W", {W}),
        ("A", {A}),
        ("A,W", {A, W}),
        ("w, a", {A, W}),
        ("Amps", {A}),
        ("Watts", {W}),
        ("", set()),
        ("kWh", set()),
    ],
)
def test_the_rate_unit_is_read_in_every_spelling(text, expected):
    """CFG-04 and CFG-06."""
    assert read_configuration({UNIT_KEY: text}).units == expected


@pytest.mark.parametrize("spell", [str, str.lower, str.upper])
def test_keys_are_compared_without_case(spell):
    keys = {
        spell(UNIT_KEY): "Power",
        spell("ChargingScheduleMaxPeriods"): "12",
        spell("ChargeProfileMaxStackLevel"): " 3 ",
        spell("MaxChargingProfilesInstalled"): '"9"',
        spell("NumberOfConnectors"): "'2'",
        spell("SupportedFeatureProfiles"): "Core, Smart Charging",
    }

    assert read_configuration(keys) == Capabilities(
        units=frozenset({W}),
        periods_max=12,
        stack_level_max=3,
        profiles_max=9,
        connectors=2,
        has_smart_charging=True,
        is_known=True,
    )


def test_a_station_that_says_nothing_is_unknown_not_incapable():
    said = read_configuration({})

    assert said == Capabilities()
    assert said.has_smart_charging is None
    assert not said.is_known


def test_a_list_without_smart_charging_says_so():
    said = read_configuration({"SupportedFeatureProfiles": "Core,Reservation"})

    assert said.has_smart_charging is False


@pytest.mark.parametrize("text", ["", "many", "-1", "3.5", "NaN", "1e3"])
def test_a_number_that_is_none_is_no_limit(text):
    assert read_configuration({"ChargingScheduleMaxPeriods": text}).periods_max is None


@examples(100)
@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=5), st.text())
def test_no_configuration_makes_reading_fail(keys, text):
    for name in (UNIT_KEY, "ChargingScheduleMaxPeriods", "SupportedFeatureProfiles"):
        said = read_configuration({**keys, name: text})
        profile_form(said, _traits())


@pytest.mark.parametrize(
    ("units", "is_dc", "quirk", "expected"),
    [
        (set(), True, None, W),
        (set(), False, None, A),
        ({A, W}, True, None, W),
        ({A, W}, False, None, A),
        ({W}, False, None, W),
        ({A}, True, None, A),
        ({A, W}, False, "watts-only", W),
        ({A, W}, True, "amps-only", A),
    ],
)
def test_dc_speaks_watts_and_ac_amperes_unless_the_station_differs(
    units, is_dc, quirk, expected
):
    traits = _traits(*([quirk] if quirk else []), is_dc=is_dc)

    assert profile_form(Capabilities(units=frozenset(units)), traits).unit is expected


def test_dc_has_no_phases_and_a_floor_of_one_kilowatt():
    form = profile_form(Capabilities(), _traits())

    assert (form.phases, form.minimum_w) == (None, 1000.0)


@pytest.mark.parametrize(("phases", "minimum_w"), [(1, 1380.0), (3, 4140.0)])
def test_ac_names_its_phases_and_needs_six_amperes_on_each(phases, minimum_w):
    form = profile_form(Capabilities(), _traits(is_dc=False, phases=phases))

    assert (form.phases, form.minimum_w) == (phases, minimum_w)


@pytest.mark.parametrize(
    ("said", "expected"),
    [(None, PERIODS_UNKNOWN), (0, PERIODS_UNKNOWN), (6, 6), (5000, PERIODS_MAX), (1, 1)],
)
def test_the_number_of_periods_is_what_the_station_takes_within_reason(said, expected):
    form = profile_form(Capabilities(periods_max=said), _traits())

    assert form.periods_max == expected


@pytest.mark.parametrize(("said", "expected"), [(None, 0), (0, 0), (3, 3), (999, 20)])
def test_the_stack_level_is_the_highest_that_makes_sense(said, expected):
    form = profile_form(Capabilities(stack_level_max=said), _traits())

    assert form.stack_level == expected


def test_quirks_set_by_hand_win_over_what_the_station_says():
    said = Capabilities(periods_max=20, stack_level_max=5)
    quirks = ("single-period", "stack-level-0", "relative-only", "whole-amps", "no-zero")

    assert set(quirks) <= set(QUIRKS)
    assert profile_form(said, _traits(*quirks)) == ProfileForm(
        unit=W,
        phases=None,
        periods_max=1,
        stack_level=0,
        is_relative=True,
        whole_amps=True,
        zero_allowed=False,
    )


CTRLR = "smartchargingctrlr"


def _variables(**values):
    return {(CTRLR, *name.partition("__")[::2]): text for name, text in values.items()}


def test_variables_of_2x_say_what_the_keys_of_16_say_and_more():
    """B6: the same fields, and those of 2.1."""
    values = _variables(
        available="true",
        enabled=" True ",
        profilestacklevel="3",
        rateunit="A,W",
        periodsperschedule="24",
        entries__chargingprofiles="2",
        supportsfeature__dynamicprofiles="true",
        supportsfeature__limitatsoc="false",
        maxexternalconstraintsid="99",
        chargingprofilepersistence__txprofile="false",
    )

    assert read_variables(values, evses=2, profiles_max=20) == Capabilities(
        units=frozenset({A, W}),
        periods_max=24,
        stack_level_max=3,
        profiles_max=20,
        connectors=2,
        has_smart_charging=True,
        is_known=True,
        features=frozenset({"dynamicprofiles"}),
        external_ids_max=99,
        transactions_persist=False,
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, None),
        ({"available": "true"}, True),
        ({"enabled": "true"}, True),
        ({"available": "true", "enabled": "false"}, False),
        ({"available": "false", "enabled": "true"}, False),
        ({"available": "maybe"}, None),
    ],
)
def test_smart_charging_is_there_unless_the_station_denies_it(values, expected):
    """A missing variable is no proof of a missing feature."""
    assert read_variables(_variables(**values)).has_smart_charging is expected


def test_variables_of_other_components_are_no_capabilities():
    """A vendor's component may have a RateUnit too."""
    said = read_variables({("vendorctrlr", "rateunit", ""): "A"})

    assert said == Capabilities(is_known=True)
    assert read_variables({}) == Capabilities()


@examples(100)
@given(
    st.dictionaries(
        st.tuples(st.just(CTRLR), st.text(max_size=9), st.text(max_size=9)),
        st.text(max_size=20),
        max_size=5,
    ),
    st.text(),
)
def test_no_variable_makes_reading_fail(values, text):
    for name in ("available", "rateunit", "periodsperschedule", "profilestacklevel"):
        said = read_variables({**values, **_variables(**{name: text})})
        profile_form(said, _traits())
