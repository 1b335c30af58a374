"""Stand-in clouds on loopback. Shares no code with the agent that it tests."""
