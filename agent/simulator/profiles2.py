"""The charging-profile store of a 2.x station, pure: what may be installed, and reports.

By OCPP 2.0.1 use cases K01 to K10 and what 2.1 adds: Dynamic profiles, and validity that
ends when the link is gone too long. What limit follows is in profile_rules.py.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.simulator.profile_form import Profile, ProfileRefused
from agent.simulator.profile_form2 import read_profile2, updated
from agent.simulator.profile_rules import (
    STATION,
    Installed,
    ProfileBook,
    Running,
    edges_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SOURCE = "CSO"  # whose limits ours are, in reports
RATE_S = 60.0  # between two profiles, with the fault profile-rate-limit


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileOptions2:
    """What the station can hold; more is rejected. `features` are those of 2.1."""

    version: str = "2.0.1"
    max_stack_level: int = 10
    max_periods: int = 48
    max_profiles: int = 50
    units: frozenset[str] = frozenset({"A", "W"})
    features: frozenset[str] = frozenset()
    dc: bool = True
    reads_amperes_as_watts: bool = False
    is_rate_limited: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What the store must know of an EVSE: its transaction and its vehicle's needs."""

    evse: int
    transaction_id: str | None = None
    awaits_needs: bool = False
    knows_needs: bool = False


class Verdict(NamedTuple):
    """An answer: Accepted, or Rejected with a reason code and a text."""

    status: str
    reason: str = ""
    text: str = ""

    def body(self) -> dict[str, Any]:
        """Write it as the answer to a call."""
        if not self.reason:
            return {"status": self.status}
        info = {"reasonCode": self.reason, "additionalInfo": self.text[:512]}
        return {"status": self.status, "statusInfo": info}


class ProfileStore2(ProfileBook):
    """All charging profiles of one 2.x station."""

    def __init__(self, options: ProfileOptions2 | None = None) -> None:
        """Begin empty and with a link."""
        self.options = options or ProfileOptions2()
        super().__init__(reads_amperes_as_watts=self.options.reads_amperes_as_watts)
        self._offline_since: datetime | None = None
        self._last_set: datetime | None = None

    def set_profile(
        self, outside: Outside, body: Mapping[str, Any], now: datetime
    ) -> Verdict:
        """Install a profile, or say why not."""
        try:
            self._check_rate(now)
            profile = self.judge(outside, body, now)
            kept = self._kept(profile, now)
        except ProfileRefused as refusal:
            self.last_refusal = str(refusal)
            return Verdict("Rejected", refusal.reason, str(refusal))
        made = Installed(connector=outside.evse, profile=profile, body=dict(body))
        self.installed = [*kept, made]
        self._last_set = now
        return Verdict("Accepted")

    def judge(self, outside: Outside, body: Mapping[str, Any], now: datetime) -> Profile:
        """Read a profile and hold it against every rule; raise ProfileRefused."""
        profile = read_profile2(body, now, self.options.features)
        self._check_size(profile, body, outside)
        self._check_place(profile, outside)
        for old in self._without(profile, now):
            if _conflict(old, outside.evse, profile):
                raise ProfileRefused(
                    f"profile {old.profile.profile_id} has stack level "
                    f"{profile.stack_level} already",
                    "DuplicateProfile",
                )
        return profile

    def update(self, profile_id: int, limit: float | None, now: datetime) -> Verdict:
        """Give a Dynamic profile its new limit; None leaves it."""
        for at, each in enumerate(self.installed):
            if each.profile.profile_id != profile_id:
                continue
            if each.profile.kind != "Dynamic":
                return Verdict("Rejected", "UnsupportedKind", "not Dynamic")
            present = each.profile.schedule.periods[0].limit
            profile = updated(each.profile, present if limit is None else limit, now)
            body = _with_limit(each.body, profile.schedule.periods[0].limit)
            self.installed[at] = replace(each, profile=profile, body=body)
            return Verdict("Accepted")
        return Verdict("Rejected", "InvalidProfileId", f"no profile {profile_id}")

    def clear(self, profile_id: int | None, criteria: Mapping[str, Any]) -> str:
        """Remove what matches; say Accepted or Unknown. With an id the rest is moot."""

        def goes(each: Installed) -> bool:
            if profile_id is not None:
                return each.profile.profile_id == profile_id
            return _matches(each, criteria)

        kept = [each for each in self.installed if not goes(each)]
        found = len(kept) < len(self.installed)
        self.installed = kept
        return "Accepted" if found else "Unknown"

    def report(
        self, evse: int | None, criteria: Mapping[str, Any]
    ) -> dict[int, list[dict[str, Any]]]:
        """Give the profiles that match by EVSE, as they were received."""
        sources = criteria.get("chargingLimitSource")
        ids = criteria.get("chargingProfileId")
        found: dict[int, list[dict[str, Any]]] = defaultdict(list)
        if sources is not None and SOURCE not in sources:
            return found
        wanted = criteria if evse is None else {**criteria, "evseId": evse}
        for each in self.installed:
            is_asked = each.profile.profile_id in ids if ids else _matches(each, wanted)
            if is_asked and evse in (None, each.connector):
                found[each.connector].append(each.body)
        return found

    def lose_link(self, now: datetime) -> None:
        """Begin to count the time without a link."""
        if self._offline_since is None:
            self._offline_since = now

    def regain_link(self, now: datetime) -> None:
        """Revive what was invalid offline, but for what is lost for good then."""
        self.installed = [
            each
            for each in self.installed
            if self._is_in_force(each, now) or not each.profile.ends_offline
        ]
        self._offline_since = None

    def _check_rate(self, now: datetime) -> None:
        if not self.options.is_rate_limited or self._last_set is None:
            return
        wait_s = RATE_S - (now - self._last_set).total_seconds()
        if wait_s > 0:
            text = f"{wait_s:.0f} seconds before retry"
            raise ProfileRefused(text, "RateLimitExceeded")

    def _check_size(
        self, profile: Profile, body: Mapping[str, Any], outside: Outside
    ) -> None:
        options = self.options
        if profile.stack_level > options.max_stack_level:
            raise ProfileRefused(f"level {profile.stack_level}", "InvalidStackLevel")
        schedules = body["chargingSchedule"]
        if len(schedules) != 1 and not outside.knows_needs:
            raise ProfileRefused("several schedules without needs", "InvalidSchedule")
        for each in schedules:
            if len(each["chargingSchedulePeriod"]) > options.max_periods:
                raise ProfileRefused("too many periods", "TooManyElements")
        if profile.schedule.unit not in options.units:
            raise ProfileRefused(profile.schedule.unit, "UnsupportedRateUnit")
        has_phases = any(each.phases is not None for each in profile.schedule.periods)
        if options.dc and options.version == "2.1" and has_phases:
            raise ProfileRefused("numberPhases for DC", "NoPhaseForDC")

    def _check_place(self, profile: Profile, outside: Outside) -> None:
        if profile.purpose == "ChargingStationMaxProfile" and outside.evse != STATION:
            raise ProfileRefused("a station maximum for one EVSE", "InvalidProfile")
        if profile.purpose != "TxProfile":
            return
        if outside.evse == STATION:
            raise ProfileRefused("a TxProfile for EVSE 0", "InvalidProfile")
        named, runs = profile.transaction_id, outside.transaction_id
        if named is None or named != runs:
            raise ProfileRefused(f"for {named}, while {runs} runs", "TxNotFound")
        if outside.awaits_needs:
            is_21 = self.options.version == "2.1"
            reason = "InvalidMessageSequence" if is_21 else "InvalidMessageSeq"
            raise ProfileRefused("the vehicle has not told its needs yet", reason[:20])

    def _kept(self, profile: Profile, now: datetime) -> list[Installed]:
        kept = self._without(profile, now)
        if len(kept) >= self.options.max_profiles:
            raise ProfileRefused(f"{len(kept)} are installed", "TooManyElements")
        return kept

    def _without(self, profile: Profile, now: datetime) -> list[Installed]:
        """List what stays when a profile comes: not its own id, nothing expired."""

        def stays(old: Profile) -> bool:
            is_over = old.valid_to is not None and old.valid_to <= now
            return not is_over and old.profile_id != profile.profile_id

        return [each for each in self.installed if stays(each.profile)]

    def _transaction_groups(
        self, connector: int, now: datetime, running: Running | None
    ) -> Iterator[list[Profile]]:
        """Give what may rule a transaction: its own, then the defaults by level alone."""
        own, *defaults = super()._transaction_groups(connector, now, running)
        yield own
        yield [each for group in defaults for each in group]

    def _is_in_force(self, each: Installed, now: datetime) -> bool:
        ends = self._offline_end(each.profile)
        return ends is None or now < ends

    def _edges(
        self, each: Installed, after: datetime, to: datetime, running: Running | None
    ) -> Iterator[datetime]:
        yield from edges_of(each.profile, after, to, running)
        ends = self._offline_end(each.profile)
        if ends is not None:
            yield ends

    def _offline_end(self, profile: Profile) -> datetime | None:
        """Tell until when a profile holds in the present spell without a link."""
        if self._offline_since is None or profile.max_offline_s is None:
            return None
        return self._offline_since + timedelta(seconds=profile.max_offline_s)


def _conflict(old: Installed, evse: int, new: Profile) -> bool:
    """Whether two profiles of different ids want the same place."""
    one = old.profile
    if (one.purpose, one.stack_level) != (new.purpose, new.stack_level):
        return False
    if new.purpose == "TxProfile":
        return one.transaction_id == new.transaction_id
    is_same_place = old.connector == evse or (
        new.purpose == "TxDefaultProfile" and STATION in (old.connector, evse)
    )
    return is_same_place and _overlap(one, new)


def _overlap(one: Profile, other: Profile) -> bool:
    """Whether there is an instant at which both are valid."""
    for first, second in ((one, other), (other, one)):
        if (
            first.valid_to is not None
            and second.valid_from is not None
            and first.valid_to <= second.valid_from
        ):
            return False
    return True


def _matches(each: Installed, criteria: Mapping[str, Any]) -> bool:
    facts = {
        "evseId": each.connector,
        "chargingProfilePurpose": each.profile.purpose,
        "stackLevel": each.profile.stack_level,
    }
    return all(criteria.get(name, fact) == fact for name, fact in facts.items())


def _with_limit(body: Mapping[str, Any], limit: float) -> dict[str, Any]:
    first, *rest = body["chargingSchedule"]
    period = {**first["chargingSchedulePeriod"][0], "limit": limit}
    return {
        **body,
        "chargingSchedule": [{**first, "chargingSchedulePeriod": [period]}, *rest],
    }
