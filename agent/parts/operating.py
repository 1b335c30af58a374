"""Operations that need no cloud: messages that are owed."""

from __future__ import annotations

import orjson

from agent.cloud.webhook import bill_json
from agent.control.letters import Letters
from agent.domain.effects import BillingReport
from agent.parts.base import Ground, Part
from agent.ports import OutboxRow


class OperatingPart(Part):
    """Adds the operations; it has no task of its own."""

    def __init__(self, ground: Ground) -> None:
        """Add them."""
        letters = Letters(ground.store, ground.clock, _body, ground.hurry)
        letters.add_to(ground.operations)


def _body(row: OutboxRow) -> object:
    """What a message says: a bill as it is posted, others as they are kept."""
    if isinstance(row.report, BillingReport):
        return bill_json(row.report)
    return orjson.loads(orjson.dumps(row.report, option=orjson.OPT_UTC_Z))


def build(ground: Ground) -> OperatingPart:
    """Build the part always."""
    return OperatingPart(ground)
