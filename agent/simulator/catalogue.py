"""The misbehaviours of links and messages that a virtual station can be asked for.

Ids are those of field reports: CON, NET, SEC, BOOT, CFG, CLK, RPC, ... The first fault of
an id is the one that the id alone stands for.
"""

from __future__ import annotations

from typing import NamedTuple

ALL, V16, V2 = "all", "1.6", "2.x"


class Fault(NamedTuple):
    """One misbehaviour: its name, the ids it shows, what it does, where it has effect."""

    name: str
    ids: tuple[str, ...]
    what: str
    versions: str = ALL


TRANSPORT = (
    Fault("latency", (), "every byte is late, by VALUE s each way (0.5)"),
    Fault("jitter", (), "every byte is late by chance, up to VALUE s (0.5)"),
    Fault("bandwidth", (), "no more than VALUE bytes a second each way (2000)"),
    Fault("slow-close", (), "the end of a connection arrives VALUE s late (5)"),
    Fault("black-hole", (), "nothing passes, TCP stays; 1 minute of each 10"),
    Fault("reset", (), "a TCP reset to both sides, once in 5 minutes"),
    Fault("slice-bytes", (), "one byte per segment"),
    Fault("glue-frames", (), "many frames in one segment, each VALUE s (0.5)"),
    Fault("cut-after", ("NET-12",), "a connection ends after VALUE bytes (8192)"),
    Fault("half-open", ("NET-01",), "the old link stays open, silent, each 5 minutes"),
)
"""Faults of the network between station and central system; see transport.py."""

LINKS = (
    Fault("no-subprotocol", ("CON-01",), "offers no WebSocket subprotocol"),
    Fault("probe-connection", ("CON-02",), "first connects briefly in another version"),
    Fault("offers-many", ("CON-02",), "offers all versions, its own first"),
    Fault("wrong-dialect", ("CON-03",), "speaks 1.6 under the name ocpp2.0.1", V16),
    Fault("origin-header", ("CON-04",), "sends Origin: file:// when it connects"),
    Fault("odd-path", ("CON-05",), "doubles slashes before its id, one behind it"),
    Fault("encoded-id", ("CON-06",), "percent-encodes every letter of its id"),
    Fault("twin-connection", ("CON-07",), "connects again while its link lives"),
    Fault("bad-handshake-first", ("CON-08",), "sends broken HTTP, then connects well"),
    Fault("compressed-unasked", ("CON-09",), "flags a frame as compressed, every 2nd link"),
    Fault("fragmented-frames", ("CON-10",), "sends every message in many fragments"),
    Fault("no-pongs", ("NET-03",), "never answers a WebSocket ping"),
    Fault("refuse-ping-interval", ("NET-05",), "refuses WebSocketPingInterval"),
    Fault("deaf", ("NET-06",), "goes on sending, never answers a call"),
    Fault("late-redial", ("NET-07", "NET-10"), "redials only after 5 minutes"),
    Fault("reboot-on-disconnect", ("NET-08",), "restarts whenever its link is lost"),
    Fault("connection-loop", ("NET-09",), "drops its link every 30 seconds"),
    Fault("drop-when-polled", ("NET-11",), "drops its link when asked for meter values"),
    Fault("silent-handshake", ("SEC-01",), "opens TCP and says nothing, before each link"),
    Fault("password-as-bytes", ("SEC-02",), "sends a hex password as raw bytes"),
    Fault("keeps-old-password", ("SEC-03",), "redials with the password it had before"),
    Fault("security-event-first", ("SEC-05", "SEC-06"), "security event before boot"),
    Fault("foreign-stop", ("SEC-07", "TX-03"), "also stops a transaction not its own"),
    Fault("no-boot-on-reconnect", ("BOOT-01",), "connects again without boot (default)"),
    Fault("boot-on-reconnect", (), "sends BootNotification each time it connects"),
    Fault("crash-on-early-call", ("BOOT-02",), "drops its link when called before boot"),
    Fault("slow-settling", ("BOOT-03",), "does not answer in the first second"),
    Fault("boot-loop", ("BOOT-04", "BOOT-06"), "boots ten times in a row"),
    Fault("empty-vendor", ("BOOT-07",), "boots with an empty vendor"),
    Fault("availability-zero-hangs", ("BOOT-08",), "deaf to ChangeAvailability of all"),
    Fault("no-first-status", ("BOOT-09",), "reports no status when it connects"),
)

SETTINGS = (
    Fault(
        "silent-configuration",
        ("CFG-01", "V2-05"),
        "never answers GetConfiguration or GetVariables",
    ),
    Fault("truncated-configuration", ("CFG-01",), "cuts that answer in half"),
    Fault("over-long-values", ("CFG-02",), "tells a key of 2,000 characters", V16),
    Fault("empty-configuration", ("CFG-03",), "answers GetConfiguration with {}", V16),
    Fault("odd-keys", ("CFG-04",), "key names in lower case, lists in brackets", V16),
    Fault("hides-smart-charging", ("CFG-05",), "does not list SmartCharging", V16),
    Fault("no-rate-unit", ("CFG-06",), "does not tell the unit of limits", V16),
    Fault("dies-of-measurands", ("CFG-07",), "accepts a list of many, then restarts"),
    Fault("one-measurand", ("CFG-08",), "refuses a list of more than one measurand"),
    Fault("reboot-required", ("CFG-09",), "answers RebootRequired to each change"),
    Fault("interval-clobbered", ("CFG-10",), "sets its sample interval to 900 s later"),
    Fault("narrows-measurands", ("CFG-11",), "keeps only the first of a written list"),
    Fault(
        "limit-by-key",
        ("CFG-12",),
        "obeys only the key StationMaxCurrent, in tenths of an ampere",
        V16,
    ),
    Fault("constant-tag", ("CFG-13", "TX-15"), "tells the same tag for everyone"),
    Fault("wrong-connector-count", ("CFG-14",), "tells three connectors too many", V16),
)

TIMES = (
    Fault("clock-two-hours-ahead", ("CLK-01",), "its clock is two hours ahead"),
    Fault("no-zone", ("CLK-02",), "times without a zone"),
    Fault("short-zone", ("CLK-02",), "times with the zone +00"),
    Fault("nine-fractions", ("CLK-02",), "times with nine digits of fraction"),
    Fault("bad-times", ("CLK-02",), "every fifth time is no time at all"),
    Fault("refuses-fractions", ("CLK-03",), "boots until currentTime has no fraction"),
    Fault("clock-1970", ("CLK-04",), "its clock began in 1970"),
    Fault("clock-far-ahead", ("CLK-04",), "its clock is ten years ahead"),
    Fault("stale-status-time", ("CLK-05",), "statuses carry a time hours ago"),
    Fault("end-before-reading", ("CLK-06",), "ends lie before the closing reading"),
    Fault("start-as-local-time", ("CLK-07",), "reads startSchedule as UTC+2"),
)

FRAMES = (
    Fault("invalid-json", ("RPC-01",), "sends a broken frame after each connect"),
    Fault("truncated-json", ("RPC-01",), "cuts every seventh frame in half"),
    Fault("doubly-closed-json", ("RPC-01",), "closes every seventh frame twice"),
    Fault("nul-bytes", ("RPC-01",), "ends every seventh frame with NUL bytes"),
    Fault("binary-frames", ("RPC-01",), "sends every seventh message as binary"),
    Fault("stray-answers", ("RPC-02",), "also answers calls that nobody made"),
    Fault("answer-twice", ("RPC-02",), "sends every answer twice"),
    Fault("wrong-ids", ("RPC-02",), "answers every third call under another id"),
    Fault("slow-answers", ("RPC-03",), "answers after some seconds"),
    Fault("late-answers", ("RPC-03",), "does what is asked, answers after 45 s"),
    Fault("swallow-nth-call", ("RPC-03",), "never answers every fifth call it gets"),
    Fault("busy-ignores", ("RPC-04",), "slow, and ignores calls until it has answered"),
    Fault("null-answers", ("RPC-05",), "answers null where an object is due"),
    Fault("empty-answers", ("RPC-05",), "answers {} to everything"),
    Fault("extra-fields", ("RPC-06",), "adds fields that no schema has"),
    Fault("missing-fields", ("RPC-06",), "leaves out a field of every third message"),
    Fault("wrong-shapes", ("RPC-06",), "a list for an object in every fifth message"),
    Fault("wrong-types", ("RPC-06",), "texts for numbers in every fourth message"),
    Fault("long-texts", ("RPC-06",), "every seventh message has texts of 5,000 letters"),
    Fault("odd-frames", ("RPC-06",), "sends frames that are no OCPP but JSON"),
    Fault("deep-nesting", ("RPC-06",), "sends a frame nested 5,000 deep on connecting"),
    Fault("constant-ids", ("RPC-07",), "the same message id on every call"),
    Fault("number-ids", ("RPC-07",), "message ids are numbers"),
    Fault("data-transfer-flood", ("RPC-08",), "a vendor's DataTransfer every minute"),
    Fault("odd-case", ("RPC-09",), "writes words of statuses in lower case"),
    Fault("new-words", ("RPC-09",), "reports a status that no standard knows"),
    Fault("unknown-frame-types", ("V2-09",), "sends frames of types 5, 6 and 99"),
)
