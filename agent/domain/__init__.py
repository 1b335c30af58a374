"""Pure types, rules and decisions: no I/O, no clock, no chance."""
