"""The accounts file: TOML that a person or another system writes, strictly read.

A file with any fault is refused whole, with every fault named: half of the accounts
would let half of the fleet stand. Its text may hold names of people; it is never logged.
"""

from __future__ import annotations

import asyncio
import difflib
import tomllib
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from math import isfinite
from pathlib import Path
from typing import Any

from agent.domain.billing import AccountBook, Goal, PayAccount, plain_vin
from agent.domain.errors import ConfigFault, ConfigProblem
from agent.domain.ids import AccountId, VehicleId

FILE_BYTES_MAX = 4 * 1024 * 1024
"""Some 20,000 accounts; more is another kind of file."""
PROBLEMS_MAX = 50
"""Faults named at once; whoever mends these sees the rest next time."""
ID_MAX = 100
NAME_MAX = 200
VINS_MAX = 1000
VIN_LENGTHS = range(5, 21)
"""A VIN has 17 characters since 1981; older and special vehicles have fewer."""
PREPAID_MAX_KWH = 100_000.0

Row = Mapping[str, Any]


class AccountsFile:
    """One file that is looked at again and again; its newest good book counts."""

    def __init__(self, path: Path) -> None:
        """Watch a path; nothing is read yet."""
        self.path = path
        self._seen: tuple[int, int, int] | None = None

    def forget(self) -> None:
        """Let the next look read the file, changed or not."""
        self._seen = None

    async def changed(self) -> str | None:
        """Read the file's text if it changed since the last call, else None.

        Raises ConfigFault once per change when it cannot be read.
        """
        return await asyncio.to_thread(self._changed)

    def _changed(self) -> str | None:
        try:
            stat = self.path.stat()
            mark = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError:
            mark = (0, 0, 0)  # reading it tells why
        if mark == self._seen:
            return None
        self._seen = mark
        return read_text(self.path)


def read_text(path: Path) -> str:
    """Read the file's text. Raises ConfigFault."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
        text = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise _fault(
            "billing.accounts_file",
            str(path),
            f"cannot be read: {reason}",
            "name a file that the service may read",
        ) from error
    if len(raw) > FILE_BYTES_MAX:
        raise _fault(
            "billing.accounts_file", str(path), "is larger than 4 MiB", "split the fleet"
        )
    return text


def parse(text: str, name: str) -> AccountBook:
    """Read accounts from TOML; ``name`` stands in the faults. Raises ConfigFault."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _fault(name, "", f"is not TOML: {error}", "correct that line") from error
    return book_of(content, name)


def book_of(content: Row, name: str) -> AccountBook:
    """Read accounts from TOML's tables. Raises ConfigFault with every fault."""
    reader = _Reader(name)
    book = reader.book(content)
    if reader.problems:
        raise ConfigFault(reader.problems)
    return book


def _fault(key: str, value: str, problem: str, remedy: str) -> ConfigFault:
    return ConfigFault(
        [ConfigProblem(key=key, value=value, problem=problem, remedy=remedy)]
    )


class _Reader:
    """Reads one file and collects what is wrong with it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._owners: dict[tuple[str, str], str] = {}
        self.problems: list[ConfigProblem] = []

    def book(self, content: Row) -> AccountBook:
        for key in content:
            if key != "accounts":
                self._unknown(key, ["accounts"])
        rows = content.get("accounts", [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            self._add("accounts", rows, "is no list of tables", "write [[accounts]]")
            return AccountBook()
        return AccountBook.of(
            [self._account(f"accounts[{at}].", row) for at, row in enumerate(rows)]
        )

    def _account(self, at: str, row: Row) -> PayAccount:
        for key in row:
            if key not in READERS:
                self._unknown(f"{at}{key}", list(READERS))
        said = {
            key: read(self, f"{at}{key}", row.get(key)) for key, read in READERS.items()
        }
        if said["id"] == "":
            self._add(f"{at}id", row.get("id"), "is needed", "give each account an id")
        begin, end = said["valid_from"], said["valid_until"]
        if begin is not None and end is not None and begin >= end:
            self._add(
                f"{at}valid_until",
                row.get("valid_until"),
                "is not after valid_from",
                "exchange the two",
            )
        if "vins" not in row and "vehicle_ids" not in row:
            self._add(f"{at}vins", None, "no vehicle can use this account", "add its VINs")
        self._once(f"{at}id", "id", said["id"], said["id"])
        for vin in said["vins"]:
            self._once(f"{at}vins", "VIN", vin, said["id"])
        for vehicle_id in said["vehicle_ids"]:
            self._once(f"{at}vehicle_ids", "vehicle", vehicle_id, said["id"])
        prepaid = said["prepaid_kwh"]
        return PayAccount(
            account_id=AccountId(said["id"]),
            name=said["name"],
            vins=frozenset(said["vins"]),
            vehicle_ids=frozenset(VehicleId(item) for item in said["vehicle_ids"]),
            is_active=said["active"],
            valid_from=begin,
            valid_until=end,
            goal=Goal(
                energy_wh=None if prepaid is None else prepaid * 1000,
                soc_percent=said["stop_at_soc"],
            ),
        )

    # --- the kinds of values --------------------------------------------------------

    def text(self, at: str, value: Any) -> str:
        if value is None:
            return ""
        limit = NAME_MAX if at.endswith("name") else ID_MAX
        if isinstance(value, str) and value.isprintable() and len(value) <= limit:
            return value.strip()
        self._add(
            at, value, f"is no text of at most {limit} characters", "put it in quotes"
        )
        return ""

    def texts(self, at: str, value: Any) -> list[str]:
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(i, str) for i in value):
            self._add(at, value, "is no list of texts", 'write ["..."]')
            return []
        if len(value) > VINS_MAX or not all(0 < len(item) <= ID_MAX for item in value):
            text = f"has more than {VINS_MAX} entries, or an empty or overlong one"
            self._add(at, len(value), text, "correct the list")
            return []
        return value

    def vins(self, at: str, value: Any) -> list[str]:
        found = []
        for item in self.texts(at, value):
            vin = plain_vin(item)
            if len(vin) in VIN_LENGTHS and vin.isascii() and vin.isalnum():
                found.append(vin)
            else:
                text = "is no VIN: 17 letters and digits (5 to 20 are taken)"
                self._add(at, item, text, "compare it with the vehicle's papers")
        return found

    def flag(self, at: str, value: Any) -> bool:
        if isinstance(value, bool) or value is None:
            return value is not False
        self._add(at, value, "is neither true nor false", "write it without quotes")
        return False

    def number(self, at: str, value: Any, high: float, unit: str) -> float | None:
        if value is None:
            return None
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and isfinite(value) and 0 < value <= high:
            return float(value)
        text = f"is no number above 0 and up to {high:g}"
        self._add(at, value, text, f"give it in {unit}")
        return None

    def moment(self, at: str, value: Any, days: int) -> datetime | None:
        if value is None:
            return None
        if isinstance(value, datetime):
            if value.tzinfo is not None:
                return value.astimezone(UTC)
        elif isinstance(value, date):
            day = datetime(value.year, value.month, value.day, tzinfo=UTC)
            return day + timedelta(days=days) if value.year < date.max.year else day
        text = "is neither a date nor a time with an offset"
        self._add(at, value, text, "write 2026-12-31 or 2026-12-31T22:00:00Z, unquoted")
        return None

    # --- faults ---------------------------------------------------------------------

    def _once(self, at: str, what: str, value: str, owner: str) -> None:
        before = self._owners.get((what, value))
        if value and before is not None:
            text = f"the {what} stands in the account {before!r} already"
            self._add(at, value, text, "keep it in one of them")
        self._owners.setdefault((what, value), owner)

    def _unknown(self, key: str, known: list[str]) -> None:
        last = key.rpartition(".")[2]
        near = difflib.get_close_matches(last, known, n=1, cutoff=0.5)
        remedy = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        self._add(key, "...", "is not a known key", remedy)

    def _add(self, key: str, value: Any, problem: str, remedy: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            shown = str(value)
            self.problems.append(
                ConfigProblem(
                    key=f"{self._name}: {key}",
                    value=shown if len(shown) <= ID_MAX else f"{shown[:ID_MAX]}...",
                    problem=problem,
                    remedy=remedy,
                )
            )


READERS: dict[str, Callable[[_Reader, str, Any], Any]] = {
    "id": _Reader.text,
    "name": _Reader.text,
    "vins": _Reader.vins,
    "vehicle_ids": _Reader.texts,
    "active": _Reader.flag,
    "prepaid_kwh": lambda own, at, value: own.number(at, value, PREPAID_MAX_KWH, "kWh"),
    "stop_at_soc": lambda own, at, value: own.number(at, value, 100.0, "percent"),
    "valid_from": lambda own, at, value: own.moment(at, value, 0),
    "valid_until": lambda own, at, value: own.moment(at, value, 1),
}
"""Every key of an account, and how it is read; a day in ``valid_until`` counts whole."""
