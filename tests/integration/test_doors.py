"""The door of the station port: take-overs, guessing, floods, browsers, pinned versions."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from agent.stations import entrance, server
from agent.stations.brake import FAILURES_MAX
from tests.support.secure_depot import KEY, Depot, Pki, basic, depot, until

PASSWORD = {"security_profile": 1, "password": KEY}
ONE: list[dict[str, Any]] = [{"id": "CP-01", **PASSWORD}]
OTHER_ADDRESS = ("127.0.0.2", 0)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old link is asked for a sign of life; nobody waits five seconds for it here."""
    monkeypatch.setattr(server, "OLD_LINK_PATIENCE_S", 0.2)


def dial(place: Depot, name: str, **options: Any) -> Any:
    """A client that only connects, and answers pings as every WebSocket does."""
    return websockets.connect(
        place.plain + name,
        subprotocols=["ocpp1.6"],  # type: ignore[list-item]
        proxy=None,
        **options,
    )


async def is_open(socket: ClientConnection) -> bool:
    try:
        async with asyncio.timeout(2):
            await (await socket.ping())
    except (TimeoutError, websockets.ConnectionClosed):
        return False
    return True


async def code_of(socket: ClientConnection) -> int | None:
    async with asyncio.timeout(5):
        await socket.wait_closed()
    return socket.close_code


# --- take-over (A3) ---------------------------------------------------------------------


async def test_a3_a_proven_newcomer_from_the_same_address_takes_over(
    tmp_path: Path,
) -> None:
    """NET-01: a station that dials again while its old socket looks open."""
    header = basic("CP-01", KEY)
    async with depot(tmp_path, ONE) as place:
        old = await dial(place, "CP-01", additional_headers=header)
        await until(lambda: place.daemon.server.links)
        new = await dial(place, "CP-01", additional_headers=header)
        code = await code_of(old)
        await until(lambda: len(place.events("station_connected")) == 2)
        live = await is_open(new)
        links = len(place.daemon.server.links)
        closed = place.events("station_disconnected")
        await new.close()

    assert code == 1001
    assert live
    assert links == 1
    assert closed == []


@pytest.mark.parametrize("newcomer", ["with the password", "without any"])
async def test_a3_a_newcomer_from_elsewhere_or_without_proof_is_refused_while_the_old_lives(
    newcomer: str, tmp_path: Path
) -> None:
    """Knowing an id, or even the password, takes no living station off."""
    is_proven = newcomer == "with the password"
    rows = ONE if is_proven else [{"id": "CP-01"}]
    options: dict[str, Any] = {"additional_headers": basic("CP-01", KEY)}
    others = options | ({"local_addr": OTHER_ADDRESS} if is_proven else {})
    async with depot(tmp_path, rows) as place:
        old = await dial(place, "CP-01", **options)
        await until(lambda: place.daemon.server.links)
        new = await dial(place, "CP-01", **others)
        code = await code_of(new)
        still = await is_open(old)
        told = [item["status"] for item in place.events("station_refused")]
        await old.close()

    assert code == 1008
    assert still
    assert told == [409]


async def test_a3_a_silent_old_link_gives_way_to_anybody_who_may_come_in(
    tmp_path: Path,
) -> None:
    """A router that rebooted leaves half a connection behind."""
    async with depot(tmp_path, [{"id": "CP-01"}]) as place:
        reader, writer = await asyncio.open_connection("127.0.0.1", place.daemon.ocpp_port)
        writer.write(
            b"GET /CP-01 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: ocpp1.6\r\n"
            b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        )
        await until(lambda: place.daemon.server.links)
        new = await dial(place, "CP-01", local_addr=OTHER_ADDRESS)
        await until(lambda: place.events("link_replaced"))
        live = await is_open(new)
        await new.close()
        writer.close()
        del reader

    assert live


async def test_a3_of_many_newcomers_at_once_exactly_one_stays(tmp_path: Path) -> None:
    """Two that both find the place empty would be two active links."""
    header = basic("CP-01", KEY)
    async with depot(tmp_path, ONE) as place:
        async with asyncio.TaskGroup() as tasks:
            dials = [
                tasks.create_task(_dialled(place, header))
                for _ in range(server.NEWCOMERS_MAX)
            ]
        sockets = [item.result() for item in dials]
        # Between one link that is closed and the next that speaks there is none.
        links = place.daemon.server.links
        await until(
            lambda: [item.close_code for item in sockets].count(None) == len(links) == 1,
            timeout_s=20,
        )
        await asyncio.sleep(0.5)
        still = [item.close_code for item in sockets].count(None), len(links)
        contested = place.events("link_contested")
        for socket in sockets:
            await socket.close()

    assert still == (1, 1)
    assert contested == []


async def _dialled(place: Depot, header: dict[str, str]) -> ClientConnection:
    found: ClientConnection = await dial(place, "CP-01", additional_headers=header)
    return found


async def test_a3_more_than_three_take_overs_in_ten_minutes_are_an_alarm(
    tmp_path: Path,
) -> None:
    """CON-07: two stations with one id throw each other out for ever."""
    header = basic("CP-01", KEY)
    async with depot(tmp_path, ONE) as place:
        sockets = []
        for number in range(entrance.TAKEOVERS_MAX + 2):
            sockets.append(await dial(place, "CP-01", additional_headers=header))
            await until(
                lambda count=number + 1: len(place.events("station_connected")) == count
            )
        alarms = place.events("link_contested")
        for socket in sockets:
            await socket.close()

    assert [item["station_id"] for item in alarms] == ["CP-01"]


# --- guessing (A2, A8) -------------------------------------------------------------------


async def test_a2_five_wrong_guesses_block_their_source_and_nobody_else(
    tmp_path: Path,
) -> None:
    """Even the right password is of no use then; a station that proved itself goes on."""
    rows = [*ONE, {"id": "CP-02", **PASSWORD}]
    async with depot(tmp_path, rows) as place:

        async def knock(name: str, password: str, **more: Any) -> int:
            header = basic(name, password)
            return await place.knock(name, place.plain, headers=header, **more)

        first = await knock("CP-02", KEY)
        wrong = [await knock("CP-01", f"guess-{number}") for number in range(FAILURES_MAX)]
        late = await knock("CP-01", KEY)
        neighbour = await knock("CP-02", KEY)
        elsewhere = await knock("CP-02", KEY, local_addr=OTHER_ADDRESS)
        alarms = place.events("source_blocked")
        place.daemon.server.admit_by(place.daemon.server.doors)  # as a reload does
        released = await knock("CP-01", KEY)
        seen = repr(place.logs)

    assert first == 101
    assert wrong == [401] * FAILURES_MAX
    assert late == 401
    assert (neighbour, elsewhere) == (101, 101)
    assert len(alarms) == 1
    assert released == 101
    assert "guess-" not in seen
    assert KEY not in seen


async def test_a2_a_neighbour_that_fails_locks_no_station_out_that_needs_no_password(
    tmp_path: Path,
) -> None:
    """All of a depot may sit behind one router; an unknown id there tries for ever."""
    async with depot(tmp_path, [{"id": "CP-01"}]) as place:
        unknown = [await place.knock("CP-99", place.plain) for _ in range(7)]
        station = await place.knock("CP-01", place.plain)

    assert unknown == [404] * 5 + [401] * 2
    assert station == 101


async def _answer(place: Depot, name: str, **headers: str) -> tuple[bytes, float]:
    """The raw answer to a handshake, without its date, and how long it took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.daemon.ocpp_port)
    lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
    began = time.perf_counter()
    writer.write(
        f"GET /{name} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
        f"{lines}\r\n".encode()
    )
    text = await reader.read()
    took_s = time.perf_counter() - began
    writer.close()
    kept = [line for line in text.split(b"\r\n") if not line.lower().startswith(b"date")]
    return b"\r\n".join(kept), took_s


async def test_a8_an_unknown_id_and_a_wrong_password_are_answered_alike(
    tmp_path: Path, pki: Pki
) -> None:
    """Same bytes, and means that differ by under 5 ms, braked or not."""
    rows = [*ONE, {"id": "CP-02", "security_profile": 2, "password": KEY}]
    async with depot(tmp_path, rows, tls=pki.tls()) as place:
        answers: dict[str, set[bytes]] = {}
        times: dict[str, list[float]] = {}
        for _ in range(60):
            for name in ("CP-01", "CP-02", "CP-99"):
                text, took_s = await _answer(place, name, **basic(name, "wrong"))
                answers.setdefault(name, set()).add(text)
                times.setdefault(name, []).append(took_s)
        means = [statistics.mean(item) for item in times.values()]

    assert answers["CP-01"] == answers["CP-02"] == answers["CP-99"]
    (only,) = answers["CP-01"]
    assert only.startswith(b"HTTP/1.1 401 ")
    assert max(means) - min(means) < 0.005


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


async def test_a8_without_credentials_an_unknown_id_is_404_unless_ids_are_hidden(
    tmp_path: Path,
) -> None:
    """OCPP-J 3.2 asks for the 404; hide_station_ids puts silence above the standard."""
    async with depot(tmp_path, ONE) as place:
        usual = [await place.knock(name, place.plain) for name in ("CP-01", "CP-99")]
    async with depot(tmp_path, ONE, hide_station_ids=True) as place:
        hidden = [await place.knock(name, place.plain) for name in ("CP-01", "CP-99")]

    assert (usual, hidden) == ([401, 404], [401, 401])


# --- floods and browsers (R1, A7, A6) -----------------------------------------------------


async def test_r1_of_connections_that_never_finish_only_the_newest_are_kept(
    tmp_path: Path,
) -> None:
    """Those that waited longest go, so that a station always gets in."""
    count = 2 * len(ONE) + entrance.WAITING_SPARE + 100
    async with depot(tmp_path, ONE) as place:
        writers = []
        for _ in range(count):
            _, writer = await asyncio.open_connection("127.0.0.1", place.daemon.ocpp_port)
            writers.append(writer)
        door = place.daemon.server.entrance
        await until(lambda: door.waiting + door.dropped == count)
        waiting, dropped = door.waiting, door.dropped
        found = await place.knock("CP-01", place.plain, headers=basic("CP-01", KEY))
        for writer in writers:
            writer.transport.abort()

    assert waiting == 2 * len(ONE) + entrance.WAITING_SPARE
    assert dropped == 100
    assert found == 101


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://evil.example", 403), ("HTTPS://x", 403), ("file://", 101), ("null", 101)],
)
async def test_a7_a_web_page_reaches_no_station_without_credentials(
    origin: str, status: int, tmp_path: Path
) -> None:
    """A browser always says where a page is from; firmware says odd things (CON-04)."""
    rows = [*ONE, {"id": "CP-02"}]
    async with depot(tmp_path, rows) as place:
        header = {"Origin": origin}
        bare = await place.knock("CP-02", place.plain, headers=header)
        proven = await place.knock(
            "CP-01", place.plain, headers=header | basic("CP-01", KEY)
        )
    async with depot(tmp_path, [], unknown_stations="accept") as place:
        unknown = await place.knock("CP-77", place.plain, headers=header)

    assert (bare, proven, unknown) == (status, 101, status)


async def test_a6_a_station_that_is_pinned_to_versions_speaks_no_other(
    tmp_path: Path,
) -> None:
    """CVE-2024-44843: a weaker subprotocol than the configured one."""
    row: dict[str, Any] = {"id": "CP-01", "versions": ["2.0.1"]}
    async with depot(tmp_path, [row]) as place:
        good = await place.knock("CP-01", place.plain, version="2.0.1")
        async with websockets.connect(
            place.plain + "CP-01",
            subprotocols=["ocpp1.6"],  # type: ignore[list-item]
            proxy=None,
        ) as socket:
            code = await code_of(socket)
            chosen = socket.subprotocol

    assert good == 101
    assert (chosen, code) == (None, 1002)


@pytest.mark.parametrize(
    ("assumed", "pinned", "spoken"),
    [
        ("1.6", [], "1.6"),
        ("2.0.1", [], "2.0.1"),
        ("1.6", ["2.1"], "2.1"),
        ("1.6", ["2.0.1", "2.1"], None),
        ("none", [], None),
        ("none", ["1.6"], "1.6"),
    ],
)
async def test_con_01_a_station_that_names_no_version_speaks_what_is_configured(
    tmp_path: Path, assumed: str, pinned: list[str], spoken: str | None
) -> None:
    """A sloppy client, or a proxy that takes the header away."""
    row: dict[str, Any] = {"id": "CP-01", "versions": pinned}
    async with depot(tmp_path, [row], assume_version=assumed) as place:
        codes = []
        for _ in range(2):
            async with websockets.connect(place.plain + "CP-01", proxy=None) as socket:
                if spoken is None:
                    codes.append(await code_of(socket))
                    continue
                await socket.send('[2,"1","Heartbeat",{}]')
                answer = json.loads(await asyncio.wait_for(socket.recv(), 10))
                assert answer[0] == 3
                assert "currentTime" in answer[2]
        told = place.events("version_assumed")

    assert codes == ([] if spoken else [1002, 1002])
    assert [row["version"] for row in told] == ([spoken] if spoken else [])


async def test_two_authorization_headers_are_one_wrong_one(tmp_path: Path) -> None:
    """Not an error of the server, and no way in."""
    async with depot(tmp_path, ONE) as place:
        good = basic("CP-01", KEY)["Authorization"]
        text, _ = await _answer(
            place, "CP-01", Authorization=f"{good}\r\nAuthorization: {good}"
        )

    assert text.startswith(b"HTTP/1.1 401 ")
