"""Smartcar's errors by name, and the two forms in which they are written.

The table is that of smartcar.md section 8; `None` as code is written as null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from agent.standin.schedules import JsonObject

DOCS = "https://smartcar.com/docs/errors/"
RETRY_LATER, REAUTHENTICATE = "RETRY_LATER", "REAUTHENTICATE"
CONTACT_SUPPORT = "CONTACT_SUPPORT"


class Kind(NamedTuple):
    """One row of the table: HTTP status, what may help, and the words."""

    status: int
    resolution: str | None
    title: str


_VEHICLE_STATE = {
    "ASLEEP": (RETRY_LATER, "The vehicle is asleep."),
    "CHARGE_FAULT": (None, "The charger offers no current, or a timer is in the way."),
    "CHARGING_IN_PROGRESS": (None, "The vehicle is charging."),
    "CHARGING_PLUG_CONNECTED": (None, "The plug must be pulled first."),
    "CHARGING_PLUG_NOT_CONNECTED": (None, "The vehicle says that no plug is connected."),
    "DEVICE_PAIRING_REQUIRED": (REAUTHENTICATE, "A paired phone key is required."),
    "DOOR_OPEN": (None, "A door is open."),
    "FULLY_CHARGED": (None, "The vehicle has reached its limit."),
    "HOOD_OPEN": (None, "The hood is open."),
    "IGNITION_ON": (None, "The ignition is on."),
    "IN_MOTION": (RETRY_LATER, "The vehicle is moving."),
    "LOW_BATTERY": (RETRY_LATER, "A battery of the vehicle is too low."),
    "NOT_CHARGING": (None, "The vehicle is not charging."),
    "REMOTE_ACCESS_DISABLED": (None, "The driver has switched remote access off."),
    "TRUNK_OPEN": (None, "The trunk is open."),
    "UNKNOWN": (RETRY_LATER, "The vehicle cannot do it now."),
    "UNREACHABLE": (RETRY_LATER, "The vehicle has no coverage."),
    "VEHICLE_OFFLINE_FOR_SERVICE": (RETRY_LATER, "The vehicle is in service mode."),
}
VEHICLE_STATES = tuple(_VEHICLE_STATE)
"""Every code of 409."""
ERRORS: dict[str, Kind] = {
    "VALIDATION": Kind(400, None, "The request is not valid."),
    "VALIDATION:PARAMETER": Kind(400, None, "A parameter is not valid."),
    "VALIDATION:MISSING_PARAMETER": Kind(400, None, "A parameter is missing."),
    "VALIDATION:INVALID_INPUT_FORMAT": Kind(400, None, "The body is not valid."),
    "CONNECTED_SERVICES_ACCOUNT:ACCOUNT_ISSUE": Kind(400, None, "Action by the owner."),
    "CONNECTED_SERVICES_ACCOUNT:AUTHENTICATION_FAILED": Kind(
        400, REAUTHENTICATE, "The owner's credentials are no longer valid."
    ),
    "CONNECTED_SERVICES_ACCOUNT:NO_VEHICLES": Kind(400, None, "No vehicle in the account."),
    "CONNECTED_SERVICES_ACCOUNT:VEHICLE_MISSING": Kind(
        400, REAUTHENTICATE, "The vehicle has left the account."
    ),
    "CONNECTED_SERVICES_ACCOUNT:PERMISSION": Kind(400, None, "The account may not do it."),
    "CONNECTED_SERVICES_ACCOUNT:SUBSCRIPTION": Kind(400, None, "Subscription lapsed."),
    "CONNECTED_SERVICES_ACCOUNT:VIRTUAL_KEY_REQUIRED": Kind(400, None, "No virtual key."),
    "AUTHENTICATION": Kind(401, None, "The token is not valid."),
    "AUTHENTICATION:UNAUTHORIZED": Kind(401, None, "The token is not valid."),
    "PERMISSION": Kind(403, REAUTHENTICATE, "The permission was not granted."),
    "AUTHENTICATION:ACCESS_DENIED": Kind(403, None, "Access denied."),
    "RESOURCE_NOT_FOUND": Kind(404, None, "Nothing is stored under this name."),
    "RESOURCE_NOT_FOUND:PATH": Kind(404, None, "The path does not exist."),
    "RESOURCE_NOT_FOUND:VERSION": Kind(404, None, "The version does not exist."),
    "RESOURCE_NOT_FOUND:INVALID_PATH": Kind(404, None, "The path does not exist."),
    "RESOURCE_NOT_FOUND:VEHICLE_NOT_FOUND": Kind(404, CONTACT_SUPPORT, "Unknown vehicle."),
    "VALIDATION:METHOD": Kind(405, None, "The path has no such method."),
    **{
        f"VEHICLE_STATE:{code}": Kind(409, resolution, title)
        for code, (resolution, title) in _VEHICLE_STATE.items()
    },
    "VALIDATION:ALREADY_EXISTS": Kind(409, None, "It exists already."),
    "RATE_LIMIT:SMARTCAR_API": Kind(429, CONTACT_SUPPORT, "Too many requests."),
    "RATE_LIMIT:VEHICLE": Kind(429, RETRY_LATER, "Too soon for this vehicle."),
    "BILLING:VEHICLE_REQUEST_LIMIT": Kind(430, CONTACT_SUPPORT, "Allowance used up."),
    "BILLING:VEHICLE_LIMIT": Kind(430, CONTACT_SUPPORT, "Too many vehicles."),
    "BILLING:INVALID_PLAN": Kind(430, CONTACT_SUPPORT, "Not in the plan."),
    "BILLING:ACCOUNT_SUSPENDED": Kind(430, CONTACT_SUPPORT, "The account is suspended."),
    "SERVER:INTERNAL": Kind(500, RETRY_LATER, "Smartcar has a fault."),
    "SERVER:RECORD_NOT_FOUND": Kind(500, CONTACT_SUPPORT, "No record of the vehicle."),
    "SERVER:MULTIPLE_RECORDS_FOUND": Kind(500, CONTACT_SUPPORT, "Several records."),
    "COMPATIBILITY:VEHICLE_NOT_CAPABLE": Kind(501, None, "The vehicle cannot do it."),
    "COMPATIBILITY:SMARTCAR_NOT_CAPABLE": Kind(501, None, "Smartcar cannot do it."),
    "COMPATIBILITY:MAKE_NOT_COMPATIBLE": Kind(501, None, "The make is not supported."),
    "COMPATIBILITY:PLATFORM_NOT_CAPABLE": Kind(501, REAUTHENTICATE, "Old integration."),
    "UPSTREAM:NO_RESPONSE": Kind(502, RETRY_LATER, "The manufacturer does not answer."),
    "UPSTREAM:KNOWN_ISSUE": Kind(502, None, "The manufacturer has a known fault."),
    "UPSTREAM:UNKNOWN_ISSUE": Kind(502, RETRY_LATER, "The manufacturer has a fault."),
    "UPSTREAM:INVALID_DATA": Kind(502, RETRY_LATER, "The manufacturer sent nonsense."),
    "UPSTREAM:RATE_LIMIT": Kind(502, RETRY_LATER, "The manufacturer's limit is reached."),
    "UPSTREAM:GATEWAY_TIMEOUT": Kind(504, None, "No answer in time."),
}
"""By `TYPE:CODE`, or `TYPE` where the code is null. The names of 405, of 409 on
subscriptions and of 504 are inferred: no source gives them."""


class SmartcarError(Exception):
    """A request that ends with a row of the table."""

    def __init__(
        self,
        name: str,
        detail: str = "",
        *,
        retry_after_s: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Take a row by `TYPE:CODE`; ValueError for a name that the table lacks."""
        if name not in ERRORS:
            raise ValueError(f"error {name} is not in the table of Smartcar's errors")
        super().__init__(f"{name} {detail}".strip())
        kind_name, _, code = name.partition(":")
        self.name = name
        self.type = kind_name
        self.code = code or None
        self.status = ERRORS[name].status
        self.detail = detail or ERRORS[name].title
        self.resolution = ERRORS[name].resolution
        self.retry_after_s = retry_after_s
        self._headers = headers or {}

    @property
    def headers(self) -> dict[str, str]:
        """The headers that go with it."""
        if self.retry_after_s is None:
            return dict(self._headers)
        return {"retry-after": str(self.retry_after_s), **self._headers}

    def item(self, request_id: str = "") -> JsonObject:
        """Return the v3 error object; also used inside signals and commands."""
        row: JsonObject = {
            "status": str(self.status),
            "type": self.type,
            "code": self.code,
            "title": ERRORS[self.name].title,
            "detail": self.detail,
            "links": {"about": f"{DOCS}{self.type.lower().replace('_', '-')}"},
            "resolution": {"type": self.resolution},
            "suggestedUserMessage": self.detail,
        }
        if request_id:
            row["meta"] = {"debug": {"requestId": request_id}}
        return row

    def v3(self, request_id: str = "") -> JsonObject:
        """Return the whole v3 body."""
        return {"errors": [self.item(request_id)]}

    def v2(self, request_id: str) -> JsonObject:
        """Return the flat v2.0 body."""
        row: dict[str, Any] = {
            "type": self.type,
            "code": self.code,
            "description": self.detail,
            "docURL": f"{DOCS}{self.type.lower().replace('_', '-')}",
            "statusCode": self.status,
            "requestId": request_id,
            "resolution": {"type": self.resolution},
            "suggestedUserMessage": self.detail,
        }
        if self.type == "VALIDATION":
            row["detail"] = [{"field": [], "message": self.detail}]
        return row


def signal_error(name: str) -> JsonObject:
    """Return the smaller error object of a signal (smartcar.md 5.3)."""
    full = SmartcarError(name)
    return {
        "type": full.type,
        "code": full.code,
        "title": ERRORS[name].title,
        "detail": full.detail,
        "resolution": {"type": full.resolution or "UNKNOWN_RESOLUTION_TYPE"},
    }
