"""The device model of a virtual 2.x station: variables that are read, set and reported.

Knows the rules of Get-, SetVariables and reports; which variables there are is in
variables2.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

READ_ONLY, READ_WRITE, WRITE_ONLY = "ReadOnly", "ReadWrite", "WriteOnly"
SUMMARY_NAMES = ("Available", "AvailabilityState", "Enabled", "Problem", "Active")
CRITERIA = ("Active", "Available", "Enabled", "Problem")
ACTUAL = "Actual"


@dataclass(slots=True, kw_only=True)
class Variable:
    """One variable of one component; `live` tells values that change by themselves."""

    component: str
    name: str
    value: str = ""
    instance: str = ""
    evse: int = 0
    connector: int = 0
    mutability: str = READ_ONLY
    data_type: str = "string"
    unit: str = ""
    max_limit: float | None = None
    values: str = ""
    needs_reboot: bool = False
    live: Callable[[], str] | None = None

    @property
    def present(self) -> str:
        """Its present value."""
        return self.value if self.live is None else self.live()

    @property
    def place(self) -> str:
        """Its component with EVSE and connector, in lower case."""
        return place_of(self.component, self.evse, self.connector)

    @property
    def label(self) -> str:
        """Its unique name, as of `label_of`."""
        return label_of(self.place, self.name, self.instance)

    def address(self) -> dict[str, Any]:
        """Write it as component and variable."""
        component: dict[str, Any] = {"name": self.component}
        if self.evse:
            component["evse"] = {"id": self.evse}
            if self.connector:
                component["evse"]["connectorId"] = self.connector
        variable = {"name": self.name}
        if self.instance:
            variable["instance"] = self.instance
        return {"component": component, "variable": variable}

    def row(self) -> dict[str, Any]:
        """Write it as a row of a report."""
        attribute: dict[str, Any] = {"type": ACTUAL, "mutability": self.mutability}
        if self.mutability != WRITE_ONLY:
            attribute["value"] = self.present
        traits: dict[str, Any] = {"dataType": self.data_type, "supportsMonitoring": False}
        if self.unit:
            traits["unit"] = self.unit
        if self.max_limit is not None:
            traits["maxLimit"] = self.max_limit
        if self.values:
            traits["valuesList"] = self.values
        return {
            **self.address(),
            "variableAttribute": [attribute],
            "variableCharacteristics": traits,
        }

    def takes(self, value: str) -> bool:
        """Whether a value is one that the variable can have."""
        allowed = {each.strip() for each in self.values.split(",") if each.strip()}
        match self.data_type:
            case "boolean":
                return value.lower() in ("true", "false")
            case "integer":
                return value.lstrip("-").isdigit()
            case "OptionList":
                return not allowed or value in allowed
            case "MemberList" | "SequenceList":
                wanted = {each.strip() for each in value.split(",") if each.strip()}
                return not allowed or wanted <= allowed
            case _:
                return True


def place_of(component: str, evse: int = 0, connector: int = 0) -> str:
    """Name a component: `Component`, `Component#evse` or `Component#evse#connector`."""
    numbers = "".join(f"#{each}" for each in (evse, connector) if each)
    return f"{component}{numbers}".lower()


def label_of(place: str, name: str, instance: str = "") -> str:
    """Name a variable: `Component.Variable` or `Component.Variable[Instance]`."""
    return f"{place}.{name}{f'[{instance}]' if instance else ''}".lower()


class DeviceModel:
    """All variables of one station; names are compared without case."""

    def __init__(self, variables: Iterable[Variable]) -> None:
        """Begin with these variables."""
        self._all = {each.label: each for each in variables}
        self._places = {each.place for each in self._all.values()}
        self._staged: dict[str, str] = {}

    def text(self, label: str) -> str:
        """Tell the value of a variable that is known to exist."""
        return self._all[label.lower()].present

    def put(self, label: str, value: str) -> None:
        """Give a variable a value from inside the station; a new one is a string."""
        found = self._all.get(label.lower())
        if found is not None:
            found.value = value
            return
        component, _, rest = label.partition(".")
        name, _, instance = rest.rstrip("]").partition("[")
        made = Variable(
            component=component,
            name=name,
            instance=instance,
            value=value,
            mutability=READ_WRITE,
        )
        self._all[made.label] = made
        self._places.add(made.place)

    def take_staged(self) -> None:
        """Let values that waited for a restart hold."""
        for label, value in self._staged.items():
            self._all[label].value = value
        self._staged.clear()

    def read(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one row of GetVariables."""
        status, found = self._find(asked)
        if found is not None and found.mutability == WRITE_ONLY:
            status = "Rejected"
        row = {**_echo(asked), "attributeStatus": status}
        if status == "Accepted" and found is not None:
            row["attributeValue"] = found.present
        return row

    def write(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one row of SetVariables."""
        status, found = self._find(asked)
        row = {**_echo(asked), "attributeStatus": status}
        if found is None or status != "Accepted":
            return row
        value = str(asked["attributeValue"])
        if found.mutability == READ_ONLY:
            return {**row, **_refused("ReadOnly")}
        if not found.takes(value):
            return {**row, **_refused("InvalidValue")}
        if found.needs_reboot:
            self._staged[found.label] = value
            return {**row, "attributeStatus": "RebootRequired"}
        found.value = value
        return row

    def base_report(self, base: str) -> list[dict[str, Any]]:
        """Give the rows of a GetBaseReport."""
        rows = self._all.values()
        if base == "ConfigurationInventory":
            return [each.row() for each in rows if each.mutability != READ_ONLY]
        if base == "SummaryInventory":
            return [each.row() for each in rows if each.name in SUMMARY_NAMES]
        return [each.row() for each in rows]

    def report(self, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Give the rows of a GetReport, by components and by criteria."""
        chosen = list(self._all.values())
        if "componentVariable" in asked:
            wanted = asked["componentVariable"]
            chosen = [each for each in chosen if any(_fits(each, row) for row in wanted)]
        if "componentCriteria" in asked:
            places = self._places_by(asked["componentCriteria"])
            chosen = [each for each in chosen if each.place in places]
        return [each.row() for each in chosen]

    def _places_by(self, criteria: Iterable[str]) -> set[str]:
        """Name the components for which one of the criteria holds, or is not told."""
        places: set[str] = set()
        for name in criteria:
            told = {
                each.place: each.present.lower() == "true"
                for each in self._all.values()
                if each.name == name
            }
            default = name in ("Available", "Enabled")
            places.update(each for each in self._places if told.get(each, default))
        return places

    def _find(self, asked: Mapping[str, Any]) -> tuple[str, Variable | None]:
        component, variable = asked["component"], asked["variable"]
        evse = component.get("evse", {})
        place = place_of(component["name"], evse.get("id", 0), evse.get("connectorId", 0))
        if place not in self._places or component.get("instance"):
            return "UnknownComponent", None
        label = label_of(place, variable["name"], variable.get("instance", ""))
        found = self._all.get(label)
        if found is None:
            return "UnknownVariable", None
        if asked.get("attributeType", ACTUAL) != ACTUAL:
            return "NotSupportedAttributeType", None
        return "Accepted", found


def _echo(asked: Mapping[str, Any]) -> dict[str, Any]:
    names = ("attributeType", "component", "variable")
    return {name: asked[name] for name in names if name in asked}


def _refused(reason: str) -> dict[str, Any]:
    return {"attributeStatus": "Rejected", "attributeStatusInfo": {"reasonCode": reason}}


def _fits(each: Variable, row: Mapping[str, Any]) -> bool:
    component = row["component"]
    evse = component.get("evse")
    if each.component.lower() != component["name"].lower():
        return False
    if evse is not None and (each.evse, each.connector) != (
        evse["id"],
        evse.get("connectorId", 0),
    ):
        return False
    variable = row.get("variable")
    if variable is None:
        return True
    if each.name.lower() != str(variable["name"]).lower():
        return False
    return str(variable.get("instance", each.instance)) == each.instance
