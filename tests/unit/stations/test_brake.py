"""The brake against guessing: who waits, who does not, and how much is remembered."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from agent.stations.brake import (
    BLOCK_S,
    FAILURES_MAX,
    KEYS_MAX,
    WINDOW_S,
    Brake,
)

THERE, ELSEWHERE = "10.0.0.9", "10.0.0.10"


def guessed(
    brake: Brake, address: str, identity: str, times: int, at: float = 0.0
) -> list[bool]:
    return [brake.failed(address, identity, at + number) for number in range(times)]


def test_a2_five_failures_within_a_minute_cost_five_minutes() -> None:
    """A2; the fifth one is told apart, so that it is logged once."""
    brake = Brake()

    assert guessed(brake, THERE, "CP-01", FAILURES_MAX + 1) == [*[False] * 4, True, False]
    assert brake.is_blocked(THERE, "CP-77", 10.0)
    assert not brake.is_blocked(THERE, "CP-77", 10.0 + BLOCK_S)


def test_failures_that_are_spread_out_cost_nothing() -> None:
    """CON-08: a station that is wrong now and then is not banned."""
    brake = Brake()
    for number in range(50):
        brake.failed(THERE, "CP-01", number * (WINDOW_S / (FAILURES_MAX - 1) + 0.1))

    assert not brake.is_blocked(THERE, "CP-01", 50 * 16.0)
    assert brake.blocks == 0


def test_one_identity_guessed_at_from_many_addresses_is_braked_too() -> None:
    """A botnet has addresses enough."""
    brake = Brake()
    for number in range(FAILURES_MAX):
        brake.failed(f"10.0.1.{number}", "CP-01", 1.0)

    assert brake.is_blocked(ELSEWHERE, "cp-01", 2.0)
    assert not brake.is_blocked(ELSEWHERE, "CP-02", 2.0)


def test_a_station_that_proved_itself_is_locked_out_by_nobody_else() -> None:
    """Neither by a neighbour behind one router nor by guessing at its id elsewhere."""
    brake = Brake()
    brake.proved(THERE, "CP-01")
    guessed(brake, THERE, "CP-02", 20)
    guessed(brake, ELSEWHERE, "CP-01", 20)

    assert not brake.is_blocked(THERE, "CP-01", 20.0)
    assert brake.is_blocked(THERE, "CP-02", 20.0)
    assert brake.is_blocked(ELSEWHERE, "CP-01", 20.0)
    guessed(brake, THERE, "CP-01", FAILURES_MAX, at=30.0)
    assert brake.is_blocked(THERE, "CP-01", 36.0)


def test_a_new_configuration_lets_everybody_try_again() -> None:
    """A technician who corrected a password need not wait."""
    brake = Brake()
    guessed(brake, THERE, "CP-01", FAILURES_MAX)
    brake.release()

    assert not brake.is_blocked(THERE, "CP-01", 6.0)


def test_a_subscriber_of_ipv6_is_one_source() -> None:
    """A /64 holds more addresses than anybody can count."""
    brake = Brake()
    for number in range(FAILURES_MAX):
        brake.failed(f"2001:db8::{number:x}", f"CP-{number}", 1.0)

    assert brake.is_blocked("2001:db8::ffff", "CP-99", 2.0)
    assert not brake.is_blocked("2001:db8:0:1::1", "CP-99", 2.0)
    brake.failed("::ffff:10.0.0.9", "x", 1.0)


def test_a1_memory_stays_bounded_whatever_comes() -> None:
    """A1: ten times the bound of ids and addresses."""
    brake = Brake()
    for number in range(10 * KEYS_MAX):
        address = str(ipaddress.ip_address(0x0A000000 + number))
        brake.failed(address, f"CP-{number}", float(number))
        brake.proved(address, f"CP-{number}-good")

    assert len(brake) <= 4 * KEYS_MAX


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["10.0.0.1", "10.0.0.2", "::1", "odd"]),
            st.sampled_from(["a", "b"]),
            st.floats(0, 1000),
        ),
        max_size=60,
    )
)
def test_nobody_is_blocked_before_five_failures(
    attempts: list[tuple[str, str, float]],
) -> None:
    """Neither an address nor an identity, in any order of time."""
    brake = Brake()
    for index, (address, identity, at) in enumerate(sorted(attempts, key=lambda a: a[2])):
        seen = sorted(attempts, key=lambda a: a[2])[:index]
        if brake.is_blocked(address, identity, at):
            by_address = sum(item[0] == address for item in seen)
            by_identity = sum(item[1] == identity for item in seen)
            assert max(by_address, by_identity) >= FAILURES_MAX
        brake.failed(address, identity, at)
