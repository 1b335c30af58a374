"""OCPP over WebSocket: the only place that knows wire formats of stations."""
