"""How far a session is to charge because somebody said so: prepaid energy or a SoC."""

from __future__ import annotations

from datetime import datetime

from agent.domain.values import value

OPERATOR = "operator"
"""Source of a goal that was set by command."""


@value(kw_only=True)
class ChargeGoal:
    """Charging ends at the first of these that is reached: Wh by the meter, percent.

    ``source`` is who asked for it, for people; ``set_at`` is aware UTC.
    """

    set_at: datetime
    source: str
    energy_wh: float | None = None
    soc_percent: float | None = None

    @property
    def words(self) -> str:
        """The goal as people say it."""
        parts = []
        if self.energy_wh is not None:
            parts.append(f"{self.energy_wh / 1000:.1f} kWh")
        if self.soc_percent is not None:
            parts.append(f"{self.soc_percent:.0f} %")
        return " or ".join(parts)
