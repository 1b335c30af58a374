"""What a virtual station is: its name plate, wiring, identification and faults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.simulator.faults import check_faults

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

ID_FORMS = (
    "vid",
    "vid-lower",
    "vid-colons",
    "bare",
    "evccid-front",
    "evccid-rear",
    "central-vid",
    "emaid",
    "no-auth",
    "none",
)
RFID_PREFIX = "rfid:"
RFID_MAC_PREFIX = "rfid+mac:"
VERSIONS = ("1.6", "2.0.1", "2.1")
FAULTY_CARD = f"{RFID_PREFIX}04A2B7C9"  # told with no-mac and late-mac
EVENTS_MAX = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LateMac:
    """The MAC arrives by DataTransfer, `after_s` simulated seconds after the plug."""

    vendor_id: str = "chargeye.simulator"
    message_id: str = "VehicleMac"
    after_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StationConfig:
    """One virtual station. Power in W; times in s, simulated unless `_real_s`.

    `rated_w` is per outlet; `max_w` is for all together (None: enough for all).
    `overrides` are keys of 1.6, `variables` those of 2.x as Component.Variable[Instance];
    `password` is for Basic authentication. Of 2.x only: `iso15118` lets the vehicle tell
    its needs, `tells_vehicle_id` shows its MAC in ConnectedEV, `events_max` bounds the
    offline queue, `streams` sends the power as a periodic event stream (2.1). `seed` is
    that of the chance in its faults.
    """

    station_id: str
    url: str
    ocpp_version: str = "1.6"
    password: str | None = None
    connectors: int = 1
    rated_w: float = 150_000.0
    max_w: float | None = None
    min_w: float = 0.0
    dc: bool = True
    phases: int = 3
    vendor: str = "Virtual"
    model: str = "VS-150"
    firmware: str = "1.6.0"
    serial: str = ""
    overrides: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    iso15118: bool = False
    tells_vehicle_id: bool = True
    streams: bool = False
    events_max: int = EVENTS_MAX
    faults: frozenset[str] = frozenset()
    id_form: str = "vid"
    late_mac: LateMac | None = None
    identification_s: float = 10.0
    finishing_s: float = 2.0
    restart_s: float = 20.0
    slow_answer_real_s: float = 3.0
    needs_wait_real_s: float = 1.0
    call_timeout_real_s: float = 30.0
    backoff_first_real_s: float = 1.0
    backoff_max_real_s: float = 30.0
    ssl_context: ssl.SSLContext | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse what no station could be; let faults change what is told of a MAC."""
        object.__setattr__(self, "faults", check_faults(self.faults))
        if self.faults & {"no-mac", "late-mac"}:
            object.__setattr__(self, "id_form", FAULTY_CARD)
            object.__setattr__(self, "tells_vehicle_id", False)
        if "needs-15118" in self.faults and self.is_2x:
            object.__setattr__(self, "iso15118", True)
        if "late-mac" in self.faults and self.late_mac is None:
            object.__setattr__(self, "late_mac", LateMac())
        if self.ocpp_version not in VERSIONS:
            raise ValueError(f"no version is called {self.ocpp_version!r}")
        is_card = self.id_form.startswith((RFID_PREFIX, RFID_MAC_PREFIX))
        if self.id_form not in ID_FORMS and not is_card:
            raise ValueError(f"no form of identification is called {self.id_form!r}")
        if self.connectors < 1 or self.rated_w <= 0:
            raise ValueError(f"{self.station_id}: needs an outlet with some power")

    @property
    def subprotocol(self) -> str:
        """The WebSocket subprotocol that it speaks."""
        return f"ocpp{self.ocpp_version}"

    @property
    def is_2x(self) -> bool:
        """Whether it speaks 2.0.1 or 2.1."""
        return self.ocpp_version != "1.6"

    @property
    def supply_w(self) -> float:
        """The power in W that all outlets share."""
        return self.connectors * self.rated_w if self.max_w is None else self.max_w


def id_token(form: str, mac: str) -> str | None:
    """Write a vehicle's identification as a 1.6 station would send it; None is none.

    The forms of 2.x become the plain `VID:`, so that the vehicle stays the same.
    """
    if form.startswith(RFID_MAC_PREFIX):
        return f"VID:{mac}"
    if form.startswith(RFID_PREFIX):
        return form.removeprefix(RFID_PREFIX)
    colons = ":".join(mac[at : at + 2] for at in range(0, len(mac), 2))
    forms = {
        "vid": f"VID:{mac}",
        "vid-lower": f"vid:{mac.lower()}",
        "vid-colons": f"VID:{colons}",
        "bare": mac,
        "evccid-front": f"0000{mac}",
        "evccid-rear": f"{mac}0000",
        "central-vid": f"VID:{mac}",
        "emaid": f"VID:{mac}",
        "no-auth": f"VID:{mac}",
    }
    return forms.get(form)
