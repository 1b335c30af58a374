"""A session's own goal in the power path: reached, it draws as little as it can.

The goals of payment accounts are the business of ``control/billing``; here are those
that were set for one session. Energy counts by the meter, SoC by the best that was
measured in the session, never by a plan's guess.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from agent.control.wishes import Wish
from agent.domain import billing, session_soc
from agent.domain.capability import ProfileForm
from agent.domain.curve import constant
from agent.domain.session import Session

SOURCE = "goal"
"""What ``explain`` names as the source of the limit."""


def reached(session: Session, now: datetime) -> str | None:
    """Tell in words how a session came to its goal, or None."""
    goal = session.goal
    if goal is None:
        return None
    known = session_soc.soc_now(session, now) if goal.soc_percent is not None else None
    is_measured = known is not None and known.measured_at is not None
    return billing.reached(
        billing.Goal(energy_wh=goal.energy_wh, soc_percent=goal.soc_percent),
        charged_wh=billing.charged_wh(session, now),
        soc_percent=known.percent if known is not None and is_measured else None,
        was_reached=session.goal_reached_at is not None,
    )


def with_goal(session: Session, asked: Wish, form: ProfileForm, now: datetime) -> Wish:
    """Put a session's goal into a wish, as its last rule."""
    goal = session.goal
    if goal is None:
        return asked
    if session.goal_reached_at is None and reached(session, now) is None:
        words = f"charging ends at {goal.words} ({goal.source})"
        return replace(asked, rules=(*asked.rules, words))
    window = asked.window
    low_w = 0.0 if form.zero_allowed else window.hold_w
    given = "it gets nothing" if low_w <= 0 else f"it gets {low_w / 1000:.1f} kW"
    return replace(
        asked,
        line=constant(low_w),
        window=replace(window, can_pause=form.zero_allowed),
        source=SOURCE,
        rules=(
            *asked.rules,
            f"the goal of {goal.words} ({goal.source}) is reached: {given}",
        ),
    )
