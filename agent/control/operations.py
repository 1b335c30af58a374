"""What an operator may ask the daemon to do, by name: the command line's way in.

Every part adds its operations here. They run in the daemon, because it alone holds the
clouds' tokens, budgets and locks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from agent.domain.errors import AgentFault, CloudFault, StationFault, StoreFault

Arguments = Mapping[str, object]
Operation = Callable[[Arguments], Awaitable[object]]
"""Takes checked JSON arguments, returns what can be written as JSON."""


class OperationRefused(AgentFault):
    """It cannot be done; ``status`` as of HTTP, the message says what to do instead."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        """Remember why, and the status to answer with."""
        super().__init__(message)
        self.status = status


class Operations:
    """All operations by name, such as ``vehicles.enrol``."""

    def __init__(self) -> None:
        """Start with none."""
        self._known: dict[str, Operation] = {}

    def add(self, name: str, operation: Operation) -> None:
        """Add one. Raises ValueError when the name is taken."""
        if name in self._known:
            raise ValueError(f"the operation {name} exists twice")
        self._known[name] = operation

    @property
    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._known)

    async def run(self, name: str, arguments: Arguments) -> tuple[int, dict[str, object]]:
        """Run one; HTTP status and body, ``result`` or ``error``. Raises only for bugs."""
        operation = self._known.get(name)
        if operation is None:
            text = (
                f"this daemon cannot do {name}: the section of the configuration that it "
                "needs is missing, or the command line is newer than the daemon"
            )
            return 404, _error("Unknown", text)
        try:
            return 200, {"result": await operation(arguments)}
        except OperationRefused as fault:
            return fault.status, _error("Refused", str(fault))
        except CloudFault as fault:
            return 502, _error("Cloud", str(fault))
        except StationFault as fault:
            return 502, _error("Station", str(fault))
        except StoreFault as fault:
            return 500, _error("Store", str(fault))


def text_of(arguments: Arguments, name: str, default: str | None = None) -> str:
    """A text argument. Raises OperationRefused."""
    found = arguments.get(name, default)
    if not isinstance(found, str) or (not found and default is None):
        raise OperationRefused(f"the argument {name} must be a text")
    return found


def number_of(
    arguments: Arguments,
    name: str,
    *,
    low: float,
    high: float,
    default: float | None = None,
) -> float:
    """A number within its range. Raises OperationRefused."""
    found = arguments.get(name, default)
    is_number = isinstance(found, (int, float)) and not isinstance(found, bool)
    value = float(found) if is_number and isinstance(found, (int, float)) else float("nan")
    if not low <= value <= high:
        raise OperationRefused(
            f"the argument {name} must be a number from {low:g} to {high:g}"
        )
    return value


def flag_of(arguments: Arguments, name: str) -> bool:
    """A yes or no, no when it is absent. Raises OperationRefused."""
    found = arguments.get(name, False)
    if not isinstance(found, bool):
        raise OperationRefused(f"the argument {name} must be true or false")
    return found


def _error(code: str, description: str) -> dict[str, object]:
    return {"error": {"code": code, "description": description, "details": {}}}
