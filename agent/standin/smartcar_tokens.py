"""Smartcar's tokens: the application's (v3) and a user's rotating pair (v2.0).

Lives are measured by the stand-in's clock (smartcar.md section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from agent.standin.clock import StandinClock
    from agent.standin.schedules import JsonObject

APP_LIFE_S = 3600
USER_LIFE_S = 7200
REFRESH_LIFE = timedelta(days=60)
CODE_LIFE = timedelta(minutes=10)
GRACE_S = 600.0
"""What newer documentation says; older copies say 60."""


class AppTokens:
    """Application tokens for client credentials; there is no refresh token."""

    def __init__(self, clock: StandinClock, client_id: str, client_secret: str) -> None:
        """Accept one pair; more secrets can be added, as three may be valid at once."""
        self._clock = clock
        self.client_id = client_id
        self.secrets = {client_secret}
        self.life_s = APP_LIFE_S
        self._valid: dict[str, datetime] = {}
        self.issued = 0

    def issue(self, client_id: str, client_secret: str) -> JsonObject | None:
        """Return a token body, or None for wrong credentials."""
        if client_id != self.client_id or client_secret not in self.secrets:
            return None
        now = self._clock.now()
        self._valid = {key: until for key, until in self._valid.items() if until > now}
        self.issued += 1
        token = f"standin-app-token-{self.issued}"
        self._valid[token] = now + timedelta(seconds=self.life_s)
        return {"access_token": token, "token_type": "Bearer", "expires_in": self.life_s}

    def opens(self, token: str) -> bool:
        """Tell whether a token is known and not expired."""
        until = self._valid.get(token)
        return until is not None and self._clock.now() < until

    def revoke_all(self) -> None:
        """Make every token issued so far invalid."""
        self._valid.clear()


@dataclass(slots=True)
class _Refresh:
    """A refresh token: its user, until when it works, and what it brought forth."""

    user_id: str
    until: datetime
    used_at: datetime | None = None
    child: str | None = None


class UserTokens:
    """v2.0 pairs by user; a used refresh token works on for a grace time.

    A second use within the grace gives a second pair, and strands the first at the end
    of the grace: two refreshers of one user harm each other.
    """

    def __init__(self, clock: StandinClock) -> None:
        """Begin without users."""
        self._clock = clock
        self.grace_s = GRACE_S
        self.life_s = USER_LIFE_S
        self._refresh: dict[str, _Refresh] = {}
        self._access: dict[str, tuple[str, datetime]] = {}
        self._codes: dict[str, tuple[str, str, datetime]] = {}
        self.renewals = 0
        self._count = 0

    def code(self, user_id: str, redirect_uri: str) -> str:
        """Let a driver consent; the code lives ten minutes and works once."""
        self._count += 1
        code = f"standin-code-{self._count}"
        self._codes[code] = (user_id, redirect_uri, self._clock.now() + CODE_LIFE)
        return code

    def grant(self, user_id: str) -> JsonObject:
        """Make a pair without the browser's way."""
        now = self._clock.now()
        self._count += 1
        access = f"standin-user-token-{self._count}"
        refresh = f"standin-refresh-{self._count}"
        self._access[access] = (user_id, now + timedelta(seconds=self.life_s))
        self._refresh[refresh] = _Refresh(user_id, now + REFRESH_LIFE)
        return {
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": self.life_s,
            "refresh_token": refresh,
        }

    def exchange(self, code: str, redirect_uri: str) -> JsonObject | None:
        """Give a pair for a code, once; None when it does not fit."""
        user_id, wanted_uri, until = self._codes.get(code, ("", "", self._clock.now()))
        if self._clock.now() >= until or redirect_uri != wanted_uri:
            return None
        del self._codes[code]
        return self.grant(user_id)

    def renew(self, refresh_token: str) -> JsonObject | None:
        """Rotate; None for a token that is unknown, dead, or past its grace."""
        now = self._clock.now()
        old = self._refresh.get(refresh_token)
        if old is None or now >= old.until:
            return None
        if old.used_at is None:
            old.used_at = now
            old.until = min(old.until, now + timedelta(seconds=self.grace_s))
        elif old.child is not None:
            sibling = self._refresh[old.child]
            sibling.until = min(sibling.until, old.until)
        pair = self.grant(old.user_id)
        old.child = str(pair["refresh_token"])
        self.renewals += 1
        return pair

    def user_of(self, access_token: str) -> str | None:
        """Return the user whom an access token stands for; None when it opens nothing."""
        user_id, until = self._access.get(access_token, ("", self._clock.now()))
        return user_id if self._clock.now() < until else None

    def forget_user(self, user_id: str) -> None:
        """End all tokens of a user: consent again."""
        self._access = {k: v for k, v in self._access.items() if v[0] != user_id}
        self._refresh = {k: v for k, v in self._refresh.items() if v.user_id != user_id}

    def revoke_access(self) -> None:
        """End all access tokens; refresh tokens stay."""
        self._access.clear()
