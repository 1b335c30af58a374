"""The wire of a real WebSocket: how its endings look to a link."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from agent.stations.link import WireClosed
from agent.stations.wire import SocketWire, StationSocket


def _serve(talk: Any) -> Any:
    return serve(talk, "127.0.0.1", 0, ping_interval=None, create_connection=StationSocket)


async def test_a_pong_that_is_awaited_when_the_connection_breaks_ends_as_wire_closed() -> (
    None
):
    """Else every dead link would be logged as a bug with a traceback."""
    outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def talk(socket: StationSocket) -> None:
        wire = SocketWire(socket)
        pong = await wire.ping()  # cut right after the ping left
        socket.transport.abort()
        try:
            await pong
        except WireClosed:
            outcome.set_result("closed")
        except Exception as error:  # noqa: BLE001 - what a link would call a bug
            outcome.set_result(repr(error))

    async with _serve(talk) as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(5), connect(f"ws://127.0.0.1:{port}/CP-01"):
            assert await outcome == "closed"


async def test_a_closed_connection_is_wire_closed_for_every_verb() -> None:
    """Receive, send and ping alike."""
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def talk(socket: StationSocket) -> None:
        wire = SocketWire(socket)
        with pytest.raises(WireClosed):
            await wire.recv()
        with pytest.raises(WireClosed):
            await wire.send("[]")
        with pytest.raises(WireClosed):
            await (await wire.ping())
        await wire.close()
        ended.set_result(1)

    async with _serve(talk) as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(5):
            async with connect(f"ws://127.0.0.1:{port}/CP-01"):
                pass
            assert await ended == 1


async def test_messages_arrive_whole_and_in_order_however_they_are_cut() -> None:
    """Fragments are joined, and a flood waits in TCP, not in memory."""
    sent = [f"[{number}]" for number in range(500)]
    got: list[str] = []
    ended = asyncio.get_running_loop().create_future()

    async def talk(socket: StationSocket) -> None:
        wire = SocketWire(socket)
        for _ in range(len(sent) + 1):
            got.append((await wire.recv()).decode())
            await asyncio.sleep(0)
        ended.set_result(None)

    async with _serve(talk) as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(10), connect(f"ws://127.0.0.1:{port}/CP-01") as client:
            for text in sent[:250]:
                await client.send(text)
            await client.send(["[2,", '"a",', '"Heartbeat",{}]'])
            for text in sent[250:]:
                await client.send(text)
            await ended

    assert got == [*sent[:250], '[2,"a","Heartbeat",{}]', *sent[250:]]
