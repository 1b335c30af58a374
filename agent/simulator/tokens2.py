"""How a virtual 2.x station tells who is there: ID tokens by form. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.simulator.station_config import RFID_MAC_PREFIX, RFID_PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

EMAID_START = "DEDEPC"  # country, provider and the letter of a contract
EMAID_DIGITS = 8


def id_token2(form: str, mac: str, version: str) -> dict[str, Any] | None:
    """Write a vehicle's identification as an IdTokenType; None is none.

    The forms of 1.6 become what a 2.x station would send in the same situation.
    """
    if form.startswith(RFID_PREFIX):
        return _token(form.removeprefix(RFID_PREFIX), "ISO14443")
    if form.startswith(RFID_MAC_PREFIX):
        card = form.removeprefix(RFID_MAC_PREFIX)
        return _token(card, "ISO14443", (mac, "MacAddress"))
    eight = "EVCCID" if version == "2.1" else "MacAddress"
    colons = ":".join(mac[at : at + 2] for at in range(0, len(mac), 2))
    forms: dict[str, dict[str, Any]] = {
        "vid": _token(mac, "MacAddress"),
        "vid-lower": _token(mac.lower(), "MacAddress"),
        "vid-colons": _token(colons, "MacAddress"),
        "bare": _token(mac, "Central"),
        "central-vid": _token(f"VID:{mac}", "Central"),
        "evccid-front": _token(f"0000{mac}", eight),
        "evccid-rear": _token(f"{mac}0000", eight),
        "emaid": _token(f"{EMAID_START}{mac[-EMAID_DIGITS:]}", "eMAID", (mac, "EVCCID")),
        "no-auth": _token("", "NoAuthorization"),
    }
    return forms.get(form)


def needs_authorization(token: Mapping[str, Any]) -> bool:
    """Whether the central system is asked about the token before the start."""
    return str(token["type"]) != "NoAuthorization"


def _token(text: str, kind: str, also: tuple[str, str] | None = None) -> dict[str, Any]:
    token: dict[str, Any] = {"idToken": text, "type": kind}
    if also is not None:
        token["additionalInfo"] = [{"additionalIdToken": also[0], "type": also[1]}]
    return token
