"""The gateway's own facts: clock, ids, logs, systemd, metrics."""
