"""Token exchange: one refresh token, access JWTs of a set life (chargeye.md 2)."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from datetime import datetime

    from agent.standin.clock import StandinClock

TOKEN_LIFE_S = 8 * 3600.0
"""The quickstart's life of a JWT."""


class Tokens:
    """Issues and checks access tokens."""

    def __init__(
        self, clock: StandinClock, refresh_token: str, *, life_s: float = TOKEN_LIFE_S
    ) -> None:
        """Accept `refresh_token`; access tokens live `life_s` of the cloud's clock."""
        self._clock = clock
        self.refresh_token = refresh_token
        self.no_permission_token = f"{refresh_token}-without-permission"
        self.life_s = life_s
        self._valid: dict[str, tuple[datetime, bool]] = {}
        self._issued = 0

    def exchange(self, refresh_token: str) -> dict[str, str] | None:
        """Return a new access token, or None for an unknown refresh token."""
        if refresh_token not in (self.refresh_token, self.no_permission_token):
            return None
        now = self._clock.now()
        until = now + timedelta(seconds=self.life_s)
        self._valid = {t: v for t, v in self._valid.items() if v[0] > now}
        self._issued += 1
        token = _jwt(self._issued, now, until)
        self._valid[token] = (until, refresh_token == self.refresh_token)
        return {"token": token, "validUntil": iso_ms(until)}

    def refusal(self, token: str) -> str | None:
        """Return why `token` does not open the API; None when it does."""
        found = self._valid.get(token)
        if found is None:
            return "token is unknown"
        until, is_permitted = found
        if self._clock.now() >= until:
            return "token has expired"
        return None if is_permitted else "no permission"

    def revoke_all(self) -> None:
        """Make every access token issued so far invalid."""
        self._valid.clear()


def iso_ms(moment: datetime) -> str:
    """Return ISO 8601 UTC with milliseconds and Z."""
    text = moment.isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _jwt(number: int, issued: datetime, until: datetime) -> str:
    parts = (
        {"alg": "HS256", "typ": "JWT"},
        {
            "sub": "standin",
            "jti": number,
            "iat": int(issued.timestamp()),
            "exp": int(until.timestamp()),
        },
    )
    encoded = [
        base64.urlsafe_b64encode(orjson.dumps(part)).rstrip(b"=").decode() for part in parts
    ]
    return ".".join([*encoded, f"standin-{number}"])
