"""The wire of a real WebSocket: how its endings look to a link."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from agent.stations.link import WireClosed
from agent.stations.server import SocketWire


async def test_a_pong_that_is_awaited_when_the_connection_breaks_ends_as_wire_closed() -> (
    None
):
    """Else every dead link would be logged as a bug with a traceback."""
    outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def talk(socket: ServerConnection) -> None:
        wire = SocketWire(socket)
        pong = await wire.ping()  # cut right after the ping left
        socket.transport.abort()
        try:
            await pong
        except WireClosed:
            outcome.set_result("closed")
        except Exception as error:  # noqa: BLE001 - what a link would call a bug
            outcome.set_result(repr(error))

    async with serve(talk, "127.0.0.1", 0, ping_interval=None) as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(5), connect(f"ws://127.0.0.1:{port}/CP-01"):
            assert await outcome == "closed"


async def test_a_closed_connection_is_wire_closed_for_every_verb() -> None:
    """Receive, send and ping alike."""
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def talk(socket: ServerConnection) -> None:
        wire = SocketWire(socket)
        with pytest.raises(WireClosed):
            await wire.recv()
        with pytest.raises(WireClosed):
            await wire.send("[]")
        with pytest.raises(WireClosed):
            await (await wire.ping())
        await wire.close()
        ended.set_result(1)

    async with serve(talk, "127.0.0.1", 0, ping_interval=None) as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(5):
            async with connect(f"ws://127.0.0.1:{port}/CP-01"):
                pass
            assert await ended == 1
