"""The list of log events and the code that logs say the same."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import agent
from agent.host.events import EVENTS, markdown

ROOT = Path(next(iter(agent.__path__)))
APART = ("simulator", "standin")
"""These share no code with the daemon; they have no log."""
LOGGING = {"debug", "info", "warning", "error", "exception", "critical"}
TELLING = {"tell"}
CONTRACT = (
    "station_connected", "station_disconnected", "station_refused", "vehicle_matched",
    "vehicle_unmatched", "vehicle_ambiguous", "session_started", "session_ended",
    "plan_received", "plan_refused", "limit_sent", "limit_confirmed", "limit_refused",
    "limit_not_followed", "vehicle_not_resumed", "cap_at_risk", "cloud_unreachable",
    "cloud_recovered", "outbox_dead_letter", "config_reloaded", "config_refused",
)  # fmt: skip


def named_events() -> dict[str, str]:
    """Every event name that the code logs -> where."""
    found: dict[str, str] = {}
    for file in sorted(ROOT.rglob("*.py")):
        if file.relative_to(ROOT).parts[0] in APART:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for function in ast.walk(tree):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for name, line in _of_function(function):
                    found.setdefault(name, f"{file.relative_to(ROOT)}:{line}")
    return found


def _of_function(function: ast.AST) -> Iterator[tuple[str, int]]:
    local = {
        target.id: node.value
        for node in ast.walk(function)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(function):
        if not isinstance(node, ast.Call):
            continue
        arguments: list[ast.expr] = []
        if _is_log(node.func):
            arguments = node.args[:1]
        elif isinstance(node.func, ast.Name) and node.func.id == "Told":
            arguments = [k.value for k in node.keywords if k.arg == "event"]
        for argument in arguments:
            known = argument
            if isinstance(argument, ast.Name) and argument.id in local:
                known = local[argument.id]
            for name in _names(known):
                yield name, node.lineno


def _is_log(called: ast.expr) -> bool:
    if not isinstance(called, ast.Attribute):
        return False
    if called.attr in TELLING:
        return True
    holder = called.value
    return called.attr in LOGGING and isinstance(holder, ast.Name) and holder.id == "log"


def _names(value: ast.expr) -> list[str]:
    """The texts that an expression may become: a constant, a choice, or a table."""
    match value:
        case ast.Constant(value=str() as name):
            return [name]
        case ast.IfExp(body=body, orelse=orelse):
            return _names(body) + _names(orelse)
        case ast.Subscript(value=ast.Dict(values=values)):
            return [name for item in values for name in _names(item)]
        case _:
            return []


def test_every_event_that_the_code_logs_is_in_the_list() -> None:
    """A technician can look each one up."""
    unknown = {name: where for name, where in named_events().items() if name not in EVENTS}

    assert unknown == {}


def test_every_event_in_the_list_is_logged_somewhere() -> None:
    """No entry outlives its code."""
    assert set(EVENTS) - set(named_events()) == set()


def test_the_walk_finds_names_in_every_form_that_the_code_uses() -> None:
    """A constant, a choice, a table behind a name, and a bug's exception."""
    found = named_events()

    assert "station_connected" in found
    assert {"session_started", "transaction_started"} <= set(found)
    assert {"vehicle_matched", "vehicle_unmatched", "vehicle_ambiguous"} <= set(found)
    assert "link_failed" in found


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_a_name_is_a_phrase_and_an_entry_says_what_it_means(name: str) -> None:
    """Contract section 5: lower case with underscores; level, meaning, what to do."""
    event = EVENTS[name]

    assert re.fullmatch(r"[a-z]+(_[a-z]+)+", name)
    assert event.level in ("info", "warning", "error")
    assert len(event.meaning) > 10
    assert event.to_do
    assert "|" not in event.meaning + event.to_do


@pytest.mark.parametrize(
    "name", [name for name in CONTRACT if name != "vehicle_not_resumed"]
)
def test_the_names_of_the_contract_exist(name: str) -> None:
    """Log monitors rely on them."""
    assert name in EVENTS


def test_the_readmes_table_has_a_row_for_each_event() -> None:
    """Generated, so that it cannot be stale."""
    lines = markdown().splitlines()

    assert len(lines) == len(EVENTS) + 2
    assert all(line.count("|") == 5 for line in lines)
