"""What a station can do with charging profiles, as it says and as it is configured.

Everything a station says about itself is a hint (charger-quirks.md rule 4); a missing
key is no proof of a missing feature (ocpp-depot.md B6). Quirks are names that can be
switched on by hand in ``[[stations]] quirks``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

NOMINAL_VOLTAGE_V = 230.0
"""Conversion between A and W uses the nominal voltage, not the measured one (B5)."""
PERIODS_UNKNOWN = 24
"""Periods sent to a station that does not say how many it takes (B10.7)."""
PERIODS_MAX = 200
"""More is never needed: a day in quarter hours has 96."""
ID_OFFSET_MAX = 1_000_000
"""Profile ids start above what other masters use, within reason."""
STACK_LEVEL_MAX = 20
"""One firmware reports 999 (PRF-03)."""
AC_MINIMUM_A = 6.0
"""Below it an IEC 61851 vehicle cannot charge (B5)."""
DC_MINIMUM_W = 1000.0
"""Kempower treats lower limits as 0 (LIM-05)."""

SMART_CHARGING = "smartchargingctrlr"
"""The component of 2.x that tells what a station can do with profiles, lower case."""

QUIRKS = {
    "stack-level-0": "only stack level 0 is accepted (ABB Terra, Wallbox; PRF-03)",
    "no-connector-0": "profiles on connector 0 are refused (PRF-02)",
    "relative-only": "only Relative schedules are accepted (PRF-08)",
    "single-period": "schedules with more than one period crash it (PRF-10)",
    "watts-only": "only limits in W work (LIM-01)",
    "amps-only": "only limits in A work (LIM-02)",
    "whole-amps": "limits are taken in whole amperes (PRF-13)",
    "no-zero": "a limit of 0 ends the transaction (LIM-09)",
    "no-default-profile": "TxDefaultProfile is refused or ignored (PRF-01)",
    "no-configuration": "GetConfiguration is not answered (CFG-01)",
    "base32-tags": "the EV id is written in Base32 in the idTag (A2)",
    "no-ping": "WebSocket pings are not answered (NET-03)",
}
"""Names accepted in ``[[stations]] quirks``, with what they mean."""


class RateUnit(StrEnum):
    """Unit of a charging schedule."""

    WATT = "W"
    AMPERE = "A"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What the station reported; None where it said nothing."""

    units: frozenset[RateUnit] = frozenset()
    periods_max: int | None = None
    stack_level_max: int | None = None
    profiles_max: int | None = None
    connectors: int | None = None
    has_smart_charging: bool | None = None
    is_known: bool = False
    features: frozenset[str] = frozenset()
    """Of 2.1: names of ``SmartChargingCtrlr.SupportsFeature`` that are true."""
    external_ids_max: int | None = None
    """Of 2.1: profile ids up to here belong to other masters (K01.FR.80)."""
    transactions_persist: bool | None = None
    """Of 2.1: whether a TxProfile survives a reboot (K01.FR.27)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StationTraits:
    """The station as the configuration describes it; powers in W at the outlet.

    ``phase`` is the one that a single-phase AC station hangs on, 0 where nobody said.
    """

    rated_w: float
    fallback_w: float
    is_dc: bool = True
    phases: int = 3
    outlets: int = 1
    quirks: frozenset[str] = frozenset()
    phase: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileForm:
    """How profiles must look for one station."""

    unit: RateUnit
    phases: int | None
    periods_max: int
    stack_level: int
    is_relative: bool = False
    whole_amps: bool = False
    minimum_w: float = DC_MINIMUM_W
    zero_allowed: bool = True
    id_offset: int = 0
    offline_max_s: int | None = None


def read_configuration(keys: Mapping[str, str]) -> Capabilities:
    """Read capabilities from 1.6 configuration keys, compared without case."""
    known = {key.lower(): value for key, value in keys.items()}
    profiles = known.get("supportedfeatureprofiles")
    return Capabilities(
        units=_units(known.get("chargingscheduleallowedchargingrateunit", "")),
        periods_max=_count(known.get("chargingschedulemaxperiods")),
        stack_level_max=_count(known.get("chargeprofilemaxstacklevel")),
        profiles_max=_count(known.get("maxchargingprofilesinstalled")),
        connectors=_count(known.get("numberofconnectors")),
        has_smart_charging=None
        if profiles is None
        else "smartcharging" in profiles.lower().replace(" ", ""),
        is_known=bool(known),
    )


def read_variables(
    values: Mapping[tuple[str, str, str], str],
    *,
    evses: int | None = None,
    profiles_max: int | None = None,
) -> Capabilities:
    """Read capabilities from 2.x variables (B6), by (component, variable, instance).

    Names are in lower case. ``evses`` is how many the inventory lists; ``profiles_max``
    is the maxLimit of ``Entries[ChargingProfiles]``, whose value is something else: how
    many profiles are installed now. Names of features are in lower case too.
    """
    own = {key[1:]: text for key, text in values.items() if key[0] == SMART_CHARGING}
    flags = [_flag(own.get((name, ""))) for name in ("available", "enabled")]
    return Capabilities(
        units=_units(own.get(("rateunit", ""), "")),
        periods_max=_count(own.get(("periodsperschedule", ""))),
        stack_level_max=_count(own.get(("profilestacklevel", ""))),
        profiles_max=profiles_max,
        connectors=evses,
        has_smart_charging=False if False in flags else True if True in flags else None,
        is_known=bool(values) or evses is not None,
        features=frozenset(
            instance
            for (name, instance), text in own.items()
            if name == "supportsfeature" and instance and _flag(text)
        ),
        external_ids_max=_count(own.get(("maxexternalconstraintsid", ""))),
        transactions_persist=_flag(own.get(("chargingprofilepersistence", "txprofile"))),
    )


def profile_form(
    said: Capabilities,
    traits: StationTraits,
    *,
    tuples_max: int | None = None,
    offline_max_s: int | None = None,
) -> ProfileForm:
    """Choose unit, level and size of profiles for a station (B5, B6, B10).

    ``tuples_max`` is what the vehicle at the outlet takes at most (A8).
    ``offline_max_s`` is used where a 2.1 station knows the field (K01.FR.101).
    """
    quirks = traits.quirks
    unit = _choose_unit(said, traits)
    periods = said.periods_max or PERIODS_UNKNOWN
    periods = min(periods, tuples_max) if tuples_max else periods
    features = {name.lower() for name in said.features}
    level = min(said.stack_level_max or 0, STACK_LEVEL_MAX)
    if "dynamicprofiles" in features and level > 0:
        level -= 1  # the fast limit goes above the plan (stations/v2_fast.py)
    ac_minimum_w = AC_MINIMUM_A * NOMINAL_VOLTAGE_V * traits.phases
    return ProfileForm(
        unit=unit,
        phases=None if traits.is_dc else traits.phases,
        periods_max=1 if "single-period" in quirks else min(periods, PERIODS_MAX),
        stack_level=0 if "stack-level-0" in quirks else level,
        is_relative="relative-only" in quirks,
        whole_amps="whole-amps" in quirks,
        minimum_w=DC_MINIMUM_W if traits.is_dc else ac_minimum_w,
        zero_allowed="no-zero" not in quirks,
        id_offset=min(said.external_ids_max or 0, ID_OFFSET_MAX),
        offline_max_s=offline_max_s if "maxofflineduration" in features else None,
    )


def _choose_unit(said: Capabilities, traits: StationTraits) -> RateUnit:
    if "watts-only" in traits.quirks:
        return RateUnit.WATT
    if "amps-only" in traits.quirks or said.units == {RateUnit.AMPERE}:
        return RateUnit.AMPERE
    if not traits.is_dc and (RateUnit.AMPERE in said.units or not said.units):
        return RateUnit.AMPERE
    return RateUnit.WATT


def _units(text: str) -> frozenset[RateUnit]:
    words = {word.strip("[]\"' ").lower() for word in re.split(r"[,;]", text)}
    found = set()
    if words & {"current", "a", "amps", "ampere"}:
        found.add(RateUnit.AMPERE)
    if words & {"power", "w", "watts", "watt"}:
        found.add(RateUnit.WATT)
    return frozenset(found)


def _flag(text: str | None) -> bool | None:
    word = "" if text is None else text.strip("[]\"' ").lower()
    return {"true": True, "1": True, "false": False, "0": False}.get(word)


def _count(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        value = int(text.strip().strip("\"'"))
    except ValueError:
        return None
    return value if value >= 0 else None
