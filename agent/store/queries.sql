-- name: save_station
-- The state of a station after a journal row.
INSERT INTO stations (station_id, seq, body) VALUES (?, ?, ?)
ON CONFLICT (station_id) DO UPDATE SET seq = excluded.seq, body = excluded.body;

-- name: save_session
INSERT INTO sessions
    (session_id, station_id, evse_id, phase, vehicle_id, plugged_at_ms, ended_at_ms, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (session_id) DO UPDATE SET
    phase = excluded.phase, vehicle_id = excluded.vehicle_id,
    plugged_at_ms = excluded.plugged_at_ms, ended_at_ms = excluded.ended_at_ms,
    body = excluded.body;

-- name: add_journal
INSERT INTO journal (seq, at_ms, station_id, new_session_id, kind, body)
VALUES (?, ?, ?, ?, ?, ?);

-- name: save_sequence
INSERT INTO sequences (name, value) VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value);

-- name: save_limit
INSERT INTO limits (station_id, evse_id, body) VALUES (?, ?, ?)
ON CONFLICT (station_id, evse_id) DO UPDATE SET body = excluded.body;

-- name: save_capabilities
INSERT INTO capabilities (station_id, body) VALUES (?, ?)
ON CONFLICT (station_id) DO UPDATE SET body = excluded.body;

-- name: save_ladder
INSERT INTO ladders (vendor, model, firmware, at_ms, body) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (vendor, model, firmware) DO UPDATE SET
    at_ms = excluded.at_ms, body = excluded.body;

-- name: save_fact
INSERT INTO facts (scope, name, at_ms, body) VALUES (?, ?, ?, ?)
ON CONFLICT (scope, name) DO UPDATE SET at_ms = excluded.at_ms, body = excluded.body;

-- name: drop_fact
DELETE FROM facts WHERE scope = ? AND name = ?;

-- name: all_facts
SELECT name, at_ms, body FROM facts WHERE scope = ? ORDER BY name LIMIT 20000;

-- name: clear_vehicles
DELETE FROM vehicles;

-- name: save_vehicle
INSERT INTO vehicles (vehicle_id, body, raw) VALUES (?, ?, ?)
ON CONFLICT (vehicle_id) DO UPDATE SET body = excluded.body, raw = excluded.raw;

-- name: save_schedule
INSERT INTO schedules (schedule_id, vehicle_id, departs_at_ms, body, raw, gone_at_ms)
VALUES (?, ?, ?, ?, ?, NULL)
ON CONFLICT (schedule_id) DO UPDATE SET
    vehicle_id = excluded.vehicle_id, departs_at_ms = excluded.departs_at_ms,
    body = excluded.body, raw = excluded.raw, gone_at_ms = NULL;

-- name: mark_schedule_gone
UPDATE schedules SET gone_at_ms = ? WHERE schedule_id = ? AND gone_at_ms IS NULL;

-- name: add_outbox
-- A fact that is already known under its key is not owed twice.
INSERT INTO outbox (destination, key, session_id, kind, body, created_at_ms)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (destination, key) DO NOTHING;

-- name: outbox_sent
UPDATE outbox SET sent_at_ms = ?, error = '', attempts = attempts + 1 WHERE row_id = ?;

-- name: outbox_failed
UPDATE outbox SET attempts = attempts + 1, error = ?, next_at_ms = ?, is_dead = ?
WHERE row_id = ?;

-- name: outbox_revived
UPDATE outbox SET is_dead = 0, attempts = 0, next_at_ms = 0
WHERE row_id = ? AND sent_at_ms IS NULL;

-- name: outbox_dropped
-- It stays for a while under its key, so that the same fact is not owed again.
UPDATE outbox SET sent_at_ms = ?, is_dead = 1 WHERE row_id = ? AND sent_at_ms IS NULL;

-- name: outbox_of_key
SELECT row_id, destination, key, session_id, kind, body, created_at_ms, attempts,
    next_at_ms, error, is_dead, sent_at_ms
FROM outbox WHERE key = ? ORDER BY row_id LIMIT 10;

-- name: seen_candidate
INSERT INTO candidates
    (mac, station_id, first_at_ms, last_at_ms, last_session_id, sessions)
VALUES (?, ?, ?, ?, ?, 1)
ON CONFLICT (mac, station_id) DO UPDATE SET
    sessions = sessions + (last_session_id <> excluded.last_session_id),
    last_at_ms = excluded.last_at_ms, last_session_id = excluded.last_session_id;

-- name: add_orphan
INSERT INTO orphans (at_ms, station_id, text) VALUES (?, ?, ?);

-- name: due_outbox
-- In order: a row waits for the older ones of its session.
SELECT row_id, destination, key, session_id, kind, body, created_at_ms, attempts,
    next_at_ms, error, is_dead
FROM outbox WHERE destination = ? AND sent_at_ms IS NULL AND is_dead = 0
ORDER BY row_id LIMIT ?;

-- name: all_outbox
SELECT row_id, destination, key, session_id, kind, body, created_at_ms, attempts,
    next_at_ms, error, is_dead
FROM outbox WHERE sent_at_ms IS NULL ORDER BY row_id LIMIT 10000;

-- name: load_stations
SELECT station_id, seq, body FROM stations;

-- name: load_sessions
-- All open sessions of a station and its newest ended ones, oldest first.
SELECT body FROM (
    SELECT body, plugged_at_ms FROM sessions WHERE station_id = ?1 AND phase <> 'ended'
    UNION ALL
    SELECT body, plugged_at_ms FROM (
        SELECT body, plugged_at_ms FROM sessions
        WHERE station_id = ?1 AND phase = 'ended' ORDER BY plugged_at_ms DESC LIMIT ?2)
) ORDER BY plugged_at_ms;

-- name: journal_tail
-- Rows that no saved state holds yet, of all stations.
SELECT j.seq, j.at_ms, j.station_id, j.new_session_id, j.kind, j.body
FROM journal AS j JOIN stations AS s ON s.station_id = j.station_id AND s.seq < j.seq
WHERE j.seq > ? ORDER BY j.seq;

-- name: whole_journal
SELECT seq, at_ms, station_id, new_session_id, kind, body
FROM journal ORDER BY seq;

-- name: last_seq
-- A pruned journal may be empty; what a station holds still counts.
SELECT coalesce(max(seq), 0) FROM (
    SELECT max(seq) AS seq FROM journal UNION ALL SELECT max(seq) FROM stations);

-- name: load_limits
SELECT station_id, evse_id, body FROM limits;

-- name: load_capabilities
SELECT station_id, body FROM capabilities;

-- name: load_ladders
-- Newest first: a site that changed its stations keeps what it uses.
SELECT body FROM ladders ORDER BY at_ms DESC LIMIT 300;

-- name: load_vehicles
SELECT vehicle_id, body, raw FROM vehicles;

-- name: load_schedules
SELECT schedule_id, body FROM schedules WHERE gone_at_ms IS NULL;

-- name: load_sequences
SELECT name, value FROM sequences;

-- name: newest_sessions
SELECT body FROM sessions ORDER BY plugged_at_ms DESC, session_id DESC LIMIT ?;

-- name: sessions_between
-- Oldest first, a page at a time: a page begins behind the last row of the one before.
SELECT body FROM sessions
WHERE plugged_at_ms >= ? AND plugged_at_ms < ? AND (plugged_at_ms, session_id) > (?, ?)
ORDER BY plugged_at_ms, session_id LIMIT ?;

-- name: one_session
SELECT body FROM sessions WHERE session_id = ?;

-- name: all_candidates
SELECT mac, station_id, first_at_ms, last_at_ms, sessions
FROM candidates ORDER BY last_at_ms DESC LIMIT 1000;

-- name: schedule_text
SELECT raw FROM schedules WHERE schedule_id = ?;

-- name: journal_piece
SELECT max(seq) FROM (SELECT seq FROM journal WHERE seq > ? ORDER BY seq LIMIT ?);

-- name: prune_journal
-- What no saved state holds yet stays: a restart replays it, however old it is.
DELETE FROM journal WHERE seq > ? AND seq <= ? AND at_ms < ? AND NOT EXISTS (
    SELECT 1 FROM stations AS s
    WHERE s.station_id = journal.station_id AND s.seq < journal.seq);

-- name: prune_outbox
DELETE FROM outbox WHERE sent_at_ms < ?;

-- name: prune_schedules
DELETE FROM schedules WHERE departs_at_ms < ?;

-- name: prune_orphans
DELETE FROM orphans WHERE at_ms < ?;
