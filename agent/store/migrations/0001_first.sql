-- The first schema. Times are epoch milliseconds; bodies are JSON of domain values.

CREATE TABLE stations (
    station_id TEXT PRIMARY KEY,
    seq INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;

CREATE TABLE sessions (
    session_id TEXT PRIMARY KEY,
    station_id TEXT NOT NULL,
    evse_id INTEGER NOT NULL,
    phase TEXT NOT NULL CHECK (phase IN ('plugged', 'charging', 'finished', 'ended')),
    vehicle_id TEXT,
    plugged_at_ms INTEGER NOT NULL,
    ended_at_ms INTEGER,
    body TEXT NOT NULL,
    CHECK (phase <> 'ended' OR ended_at_ms IS NOT NULL)
) STRICT;
CREATE INDEX sessions_by_station ON sessions (station_id, plugged_at_ms);
CREATE INDEX sessions_by_time ON sessions (plugged_at_ms);

-- Every accepted event of a station, append only; replaying it gives the tables above.
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    station_id TEXT NOT NULL,
    new_session_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE limits (
    station_id TEXT NOT NULL,
    evse_id INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (station_id, evse_id)
) STRICT;

CREATE TABLE capabilities (
    station_id TEXT PRIMARY KEY,
    body TEXT NOT NULL
) STRICT;

CREATE TABLE vehicles (
    vehicle_id TEXT PRIMARY KEY,
    body TEXT NOT NULL,
    raw TEXT NOT NULL
) STRICT;

-- A schedule that vanished from the cloud stays for the reports that are still owed.
CREATE TABLE schedules (
    schedule_id TEXT PRIMARY KEY,
    vehicle_id TEXT NOT NULL,
    departs_at_ms INTEGER NOT NULL,
    body TEXT NOT NULL,
    raw TEXT NOT NULL,
    gone_at_ms INTEGER
) STRICT;

-- Messages owed to clouds. A row that was taken stays for a while, so that the same
-- fact is never sent twice.
CREATE TABLE outbox (
    row_id INTEGER PRIMARY KEY AUTOINCREMENT,
    destination TEXT NOT NULL,
    key TEXT NOT NULL,
    session_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_at_ms INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    is_dead INTEGER NOT NULL DEFAULT 0 CHECK (is_dead IN (0, 1)),
    sent_at_ms INTEGER,
    UNIQUE (destination, key)
) STRICT;
CREATE INDEX outbox_owed ON outbox (destination, row_id) WHERE sent_at_ms IS NULL;

-- Addresses that no vehicle has, for enrolment.
CREATE TABLE candidates (
    mac TEXT NOT NULL,
    station_id TEXT NOT NULL,
    first_at_ms INTEGER NOT NULL,
    last_at_ms INTEGER NOT NULL,
    last_session_id TEXT NOT NULL,
    sessions INTEGER NOT NULL CHECK (sessions >= 1),
    PRIMARY KEY (mac, station_id)
) STRICT;

-- Messages about transactions that the agent does not know, for audit.
CREATE TABLE orphans (
    row_id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    station_id TEXT NOT NULL,
    text TEXT NOT NULL
) STRICT;

CREATE TABLE sequences (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;
