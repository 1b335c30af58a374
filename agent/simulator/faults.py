"""The misbehaviours a virtual station can be asked for, by name."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from agent.simulator.quirks import QUIRKS

if TYPE_CHECKING:
    from collections.abc import Iterable

FAULTS: dict[str, str] = {
    "ignore-profiles": "accepts charging profiles and draws what it likes",
    "refuse-profiles": "rejects every charging profile",
    "refuse-zero": "rejects a charging profile with a limit of 0",
    "refuse-high-stack-level": "rejects stack levels above 0",
    "forget-limit-after-zero": "after a limit of 0 it goes on without limit",
    "zero-ends-transaction": "a limit of 0 ends the transaction",
    "amperes-read-as-watts": "takes limits in A as if they were W",
    "lose-profiles-on-reboot": "forgets all charging profiles when it restarts",
    "composite-refused": "rejects GetCompositeSchedule",
    "composite-noise": "answers limits with many decimals, as some stacks do",
    "no-boot-on-reconnect": "does not boot when it connects again (the default)",
    "boot-on-reconnect": "sends BootNotification each time it connects",
    "swallow-nth-call": "never answers every fifth call it gets",
    "slow-answers": "answers after some seconds",
    "start-twice": "sends each StartTransaction (2.x: Started) twice",
    "stop-twice": "sends each StopTransaction (2.x: Ended) twice",
    "stop-never": "loses each StopTransaction (2.x: Ended)",
    "available-before-stop": "reports Available before it sends the end",
    "tx-id-minus-one-after-offline": "1.6: reports -1 for a transaction begun offline",
    "no-soc": "never tells a state of charge, as if the vehicle gave none",
    "soc-zero-first": "its first readings of the state of charge are 0",
    "energy-in-kwh": "reports energy in kWh with float noise",
    "numbers-as-numbers": "1.6: sends sampled values as JSON numbers, not text",
    "register-restarts": "counts each transaction's energy from 0",
    "connector-zero-meter-values": "also sends meter values for connector (2.x: EVSE) 0",
    "clock-two-hours-ahead": "its clock is two hours ahead",
    "status-storm": "repeats every status many times",
    "unknown-error-code": "1.6: reports an error code that no standard knows",
    "silent-configuration": "never answers GetConfiguration or GetVariables",
    "empty-report": "2.x: reports its device model without a single variable",
    "profile-rate-limit": "2.x: refuses a second profile within a minute",
    "repeat-seq-no": "2.x: each TransactionEvent has seqNo 0",
    "ended-first": "2.x: sends Ended before the Updated events of an offline spell",
    "status-evse-zero": "2.x: also reports a status of EVSE 0",
    "invalid-json": "sends a broken frame after each connect",
    **QUIRKS,
}


def check_faults(names: Iterable[str]) -> frozenset[str]:
    """Return the names as a set; raise ValueError naming the nearest to a wrong one."""
    chosen = frozenset(names)
    for name in sorted(chosen - FAULTS.keys()):
        near = difflib.get_close_matches(name, FAULTS, n=1, cutoff=0.0)
        raise ValueError(f"no fault is called {name!r}; the nearest is {near[0]!r}")
    return chosen
