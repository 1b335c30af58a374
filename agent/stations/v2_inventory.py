"""What a 2.x station reports in parts: its variables and its installed profiles. Pure.

Read softly (ocpp-depot.md B6, B7; charger-quirks.md V2-04): what has a wrong shape is
skipped, nothing raises, and all of it is bounded, because a station can report hundreds
of parts or never end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ocpp.v201 import enums

from agent.domain.station import EVSES_MAX
from agent.stations.framing import Payload
from agent.stations.times import parse_int, parse_number

VARIABLES_MAX = 5000
"""Variables kept per station; a large one reports about 1,500."""
VALUE_MAX = 2500
"""Longest value of a variable (2.0.1 part 2, VariableAttributeType); more is cut."""
LIST_MAX = 2500
"""Longest list of values kept; the standard says 1,000."""
NAME_MAX = 50
"""Longest name of a component, variable or instance (2.0.1 part 2)."""
ITEMS_MAX = 2000
"""Entries read of one message; more do not fit into a frame that is believed."""
PARTS_MAX = 1000
"""Parts of one report that are waited for."""
PROFILES_MAX = 500
"""Installed profiles read of one station."""

READ_ONLY = str(enums.MutabilityEnumType.read_only.value)
_ACTUAL = str(enums.AttributeEnumType.actual.value)
_ACCEPTED = str(enums.GetVariableStatusEnumType.accepted.value)
_ABSENT = frozenset(
    {
        str(enums.GetVariableStatusEnumType.unknown_component.value),
        str(enums.GetVariableStatusEnumType.unknown_variable.value),
        str(enums.GetVariableStatusEnumType.not_supported_attribute_type.value),
    }
)


@dataclass(frozen=True, slots=True)
class VariableKey:
    """The name of a variable; compared without case, as the standard wants it."""

    component: str = field(compare=False)
    variable: str = field(compare=False)
    instance: str = field(default="", compare=False)
    component_instance: str = field(default="", compare=False)
    evse_id: int | None = None
    connector_id: int | None = None
    folded: tuple[str, str, str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Fold once: keys are compared far more often than they are made."""
        folded = (
            self.component.lower(),
            self.variable.lower(),
            self.instance.lower(),
            self.component_instance.lower(),
        )
        object.__setattr__(self, "folded", folded)

    @property
    def text(self) -> str:
        """The name as it is written in settings: ``Component.Variable[Instance]``."""
        instance = f"[{self.instance}]" if self.instance else ""
        return f"{self.component}.{self.variable}{instance}"

    @property
    def payload(self) -> Payload:
        """The name as OCPP writes it, in two objects."""
        component: Payload = {"name": self.component}
        if self.component_instance:
            component["instance"] = self.component_instance
        if self.evse_id is not None:
            component["evse"] = {"id": self.evse_id}
            if self.connector_id is not None:
                component["evse"]["connectorId"] = self.connector_id
        variable: Payload = {"name": self.variable}
        if self.instance:
            variable["instance"] = self.instance
        return {"component": component, "variable": variable}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """What is known of a variable; ``value`` is that of its attribute Actual.

    ``max_limit`` is in the unit of the variable; of lists and texts it is the greatest
    length. ``is_absent``: the station said that it has no such variable.
    """

    key: VariableKey
    value: str | None = None
    max_limit: float | None = None
    values_list: str = ""
    mutability: str = ""
    is_absent: bool = False

    @property
    def is_writable(self) -> bool:
        """Whether it exists and the station did not call it read-only."""
        return not self.is_absent and self.mutability != READ_ONLY

    def updated(self, news: Variable) -> Variable:
        """Add what is new; silence about a fact keeps the fact."""
        return replace(
            self,
            value=self.value if news.value is None else news.value,
            max_limit=self.max_limit if news.max_limit is None else news.max_limit,
            values_list=news.values_list or self.values_list,
            mutability=news.mutability or self.mutability,
            is_absent=news.is_absent,
        )


@dataclass(slots=True)
class Inventory:
    """The variables of one station, as far as they are known.

    ``is_complete`` after a report that came whole.
    """

    limit: int = VARIABLES_MAX
    dropped: int = 0
    is_complete: bool = False
    _variables: dict[VariableKey, Variable] = field(default_factory=dict)

    def __len__(self) -> int:
        """Variables that exist."""
        return sum(not item.is_absent for item in self._variables.values())

    def add(self, found: Iterable[Variable]) -> None:
        """Take variables over; those beyond the limit are only counted."""
        for item in found:
            known = self._variables.get(item.key)
            if known is not None:
                self._variables[item.key] = known.updated(item)
            elif len(self._variables) < self.limit:
                self._variables[item.key] = item
            else:
                self.dropped += 1

    def get(self, key: VariableKey) -> Variable | None:
        """What is known of a variable."""
        return self._variables.get(key)

    def value(self, key: VariableKey) -> str | None:
        """The value of a variable, or None when it is not known."""
        found = self._variables.get(key)
        return None if found is None or found.is_absent else found.value

    def texts(self) -> dict[tuple[str, str, str], str]:
        """Values by component, variable and instance in lower case.

        A controller belongs to the whole station; the copy of an EVSE counts only where
        the station has none of its own.
        """
        found: dict[tuple[str, str, str], str] = {}
        for of_station in (True, False):
            for key, item in self._variables.items():
                is_whole = not key.evse_id and not key.component_instance
                if is_whole is of_station and item.value is not None and not item.is_absent:
                    found.setdefault(key.folded[:3], item.value)
        return found

    def outlets(self) -> list[tuple[int, int]]:
        """EVSEs and connectors that components belong to; an EVSE has at least one."""
        pairs: dict[int, set[int]] = {}
        for key, item in self._variables.items():
            evse = key.evse_id or 0
            if item.is_absent or not 1 <= evse <= EVSES_MAX:
                continue
            connectors = pairs.setdefault(evse, set())
            if key.connector_id is not None and 1 <= key.connector_id <= EVSES_MAX:
                connectors.add(key.connector_id)
        return [
            (evse, connector)
            for evse, connectors in sorted(pairs.items())
            for connector in sorted(connectors or {1})
        ]


class ReportParts:
    """Puts the NotifyReport messages of one request together.

    Parts come in any order, again, or not at all; ``seqNo`` counts from 0 and the part
    without ``tbc`` is the last. What a part says is taken over at once, so nothing is
    lost when the rest never comes. When to stop waiting is the caller's affair.
    """

    def __init__(self, request_id: int, inventory: Inventory) -> None:
        """Collect the answer to one request into an inventory."""
        self.request_id = request_id
        self.taken = 0
        self.variables = 0
        self._inventory = inventory
        self._seen: set[int] = set()
        self._last: int | None = None

    @property
    def has_end(self) -> bool:
        """Whether the last part came, which is no proof of the others."""
        return self._last is not None

    @property
    def is_complete(self) -> bool:
        """Whether all parts up to the last came."""
        last = self._last
        return last is not None and all(part in self._seen for part in range(last + 1))

    @property
    def is_full(self) -> bool:
        """Whether more parts came than are believed."""
        return self.taken >= PARTS_MAX

    def take(self, payload: Payload) -> bool:
        """Take a NotifyReport over; False when it belongs to another request."""
        if parse_int(payload.get("requestId")) != self.request_id or self.is_full:
            return False
        self.taken += 1
        number = parse_int(payload.get("seqNo"))
        if number is None or number < 0:
            # Without numbers the order in which they came is the best there is (V2-01).
            number = self.taken - 1
        if payload.get("tbc") is not True:
            self._last = max(number, self._last or 0)
        if number <= PARTS_MAX:
            self._seen.add(number)
        found = list(read_report(payload))
        self.variables += len(found)
        self._inventory.add(found)
        return True


class ProfileParts:
    """Puts ReportChargingProfiles messages of several requests together.

    They have no numbers; a station sends one or more per request, for each EVSE and
    source, and the one without ``tbc`` is the last.
    """

    def __init__(self) -> None:
        """Begin with nothing asked."""
        self._open: set[int] = set()
        self._asked: set[int] = set()
        self._items: dict[tuple[int, str, int], Payload] = {}

    @property
    def items(self) -> tuple[Payload, ...]:
        """Installed profiles: ``evseId``, ``chargingLimitSource``, ``chargingProfile``."""
        return tuple(self._items.values())

    def ask(self, request_id: int) -> None:
        """Expect the answer to a request."""
        self._asked.add(request_id)
        self._open.add(request_id)

    def close(self, request_id: int) -> None:
        """Expect no more: the station said that there are no profiles."""
        self._open.discard(request_id)

    def is_complete(self, request_id: int) -> bool:
        """Whether the last part of a request came."""
        return request_id not in self._open

    def take(self, payload: Payload) -> bool:
        """Take a ReportChargingProfiles over; False when nobody asked for it."""
        request_id = parse_int(payload.get("requestId"))
        if request_id is None or request_id not in self._asked:
            return False
        if payload.get("tbc") is not True:
            self._open.discard(request_id)
        evse = parse_int(payload.get("evseId"))
        source = payload.get("chargingLimitSource")
        source = source[:NAME_MAX] if isinstance(source, str) else ""
        profiles = payload.get("chargingProfile")
        for profile in profiles if isinstance(profiles, list) else []:
            number = parse_int(profile.get("id")) if isinstance(profile, dict) else None
            if evse is None or evse < 0 or number is None:
                continue
            if len(self._items) < PROFILES_MAX or (evse, source, number) in self._items:
                self._items[evse, source, number] = {
                    "evseId": evse,
                    "chargingLimitSource": source,
                    "chargingProfile": profile,
                }
        return True


def read_report(payload: Payload) -> Iterator[Variable]:
    """Read the variables of a NotifyReport."""
    for item in _items(payload.get("reportData")):
        key = _key(item)
        if key is None:
            continue
        traits = _dict(item.get("variableCharacteristics"))
        attribute = _actual(item.get("variableAttribute"))
        mutability = attribute.get("mutability")
        listed = traits.get("valuesList")
        yield Variable(
            key=key,
            value=_text(attribute.get("value")),
            max_limit=parse_number(traits.get("maxLimit")),
            values_list=listed[:LIST_MAX] if isinstance(listed, str) else "",
            mutability=mutability[:NAME_MAX] if isinstance(mutability, str) else "",
        )


def read_results(payload: Payload) -> Iterator[Variable]:
    """Read the results of GetVariables that teach something, also what is absent.

    A result that was Rejected is one without a value: the variable may exist.
    """
    for item in _items(payload.get("getVariableResult")):
        key = _key(item)
        if key is None:
            continue
        status = item.get("attributeStatus")
        if status == _ACCEPTED:
            yield Variable(key=key, value=_text(item.get("attributeValue")) or "")
        else:
            is_absent = isinstance(status, str) and status in _ABSENT
            yield Variable(key=key, is_absent=is_absent)


def read_statuses(payload: Payload) -> dict[VariableKey, str]:
    """Read what SetVariables did with each variable."""
    found: dict[VariableKey, str] = {}
    for item in _items(payload.get("setVariableResult")):
        key = _key(item)
        status = item.get("attributeStatus")
        if key is not None and isinstance(status, str):
            found[key] = status[:NAME_MAX]
    return found


def _items(value: Any) -> Iterator[dict[str, Any]]:
    for item in value[:ITEMS_MAX] if isinstance(value, list) else []:
        if isinstance(item, dict):
            yield item


def _key(item: dict[str, Any]) -> VariableKey | None:
    component, variable = _dict(item.get("component")), _dict(item.get("variable"))
    name, of = _name(component.get("name")), _name(variable.get("name"))
    if not name or not of:
        return None
    evse = _dict(component.get("evse"))
    return VariableKey(
        component=name,
        variable=of,
        instance=_name(variable.get("instance")),
        component_instance=_name(component.get("instance")),
        evse_id=parse_int(evse.get("id")),
        connector_id=parse_int(evse.get("connectorId")),
    )


def _actual(attributes: Any) -> dict[str, Any]:
    for attribute in _items(attributes):
        if attribute.get("type", _ACTUAL) == _ACTUAL:
            return attribute
    return {}


def _name(value: Any) -> str:
    return value.strip()[:NAME_MAX] if isinstance(value, str) else ""


def _text(value: Any) -> str | None:
    """A value as text; some stations send numbers and booleans as such."""
    if isinstance(value, str):
        return value[:VALUE_MAX]
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)[:VALUE_MAX] if isinstance(value, int | float) else None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
