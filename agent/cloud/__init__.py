"""Clients of ChargEye and other clouds: paths, bodies, units, outcomes."""
