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
    "none",
)
RFID_PREFIX = "rfid:"


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
    `overrides` are configuration keys; `password` is for Basic authentication.
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
    faults: frozenset[str] = frozenset()
    id_form: str = "vid"
    late_mac: LateMac | None = None
    identification_s: float = 10.0
    finishing_s: float = 2.0
    restart_s: float = 20.0
    slow_answer_real_s: float = 3.0
    call_timeout_real_s: float = 30.0
    backoff_first_real_s: float = 1.0
    backoff_max_real_s: float = 30.0
    ssl_context: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        """Refuse what no station could be."""
        check_faults(self.faults)
        if self.id_form not in ID_FORMS and not self.id_form.startswith(RFID_PREFIX):
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
    """Write a vehicle's identification as the station would send it; None is none."""
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
    }
    return forms.get(form)
