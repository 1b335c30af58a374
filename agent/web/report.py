"""Placeholder until the real module lands."""
from typing import Any
Report: Any = dict
VehicleLine: Any = dict
def render_report(report: Any) -> str:
    return ""
