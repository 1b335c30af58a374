"""HTTP on loopback and on the local socket: status page, JSON, metrics."""
