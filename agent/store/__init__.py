"""The database: one writer thread, one connection, numbered migrations."""
