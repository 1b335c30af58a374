"""Policy in motion: events become decisions, commits and orders."""
