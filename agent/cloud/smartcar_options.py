"""Where Smartcar is, who we are, and how much we may ask: the settings, as values."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.domain.budget import BudgetRules


@dataclass(frozen=True, slots=True, kw_only=True)
class SmartcarVehicle:
    """A configured car; ``refresh_token`` is the driver's first one (v2 only)."""

    vin: str
    vehicle_id: str
    user_id: str
    refresh_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmartcarOptions:
    """Where Smartcar is, who we are, and how much we may ask."""

    client_id: str
    client_secret: str = field(repr=False)
    token_url: str = "https://iam.smartcar.com/oauth2/token"  # noqa: S105 - an address
    api_url: str = "https://vehicle.api.smartcar.com/v3"
    mode: str = "live"
    auth_url: str = "https://auth.smartcar.com/oauth/token"
    v2_url: str = "https://api.smartcar.com/v2.0"
    management_url: str = "https://management.smartcar.com/v2.0"
    management_token: str = field(default="", repr=False)
    rules: BudgetRules = field(default_factory=BudgetRules)
    vehicles: tuple[SmartcarVehicle, ...] = ()
