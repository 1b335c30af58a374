"""A TCP relay whose pipes can be clogged and freed, one by one (FoundationDB's swizzle)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

PIECE_BYTES = 65_536


class Pipe:
    """One relayed port; while it is clogged nothing passes, and nothing is refused."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.port = 0
        self._is_free = asyncio.Event()
        self._is_free.set()
        self._open: set[asyncio.StreamWriter] = set()

    def clog(self) -> None:
        self._is_free.clear()

    def free(self) -> None:
        self._is_free.set()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in list(self._open):
            writer.transport.abort()

    async def take(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        both = {writer}
        self._open.add(writer)
        try:
            await self._is_free.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
            both.add(far_writer)
            self._open.add(far_writer)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._relay(reader, far_writer))
                tasks.create_task(self._relay(far_reader, writer))
        except OSError:
            return
        finally:
            self._open -= both
            for item in both:
                item.transport.abort()

    async def _relay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while piece := await reader.read(PIECE_BYTES):
                await self._is_free.wait()
                writer.write(piece)
                await writer.drain()
        with suppress(OSError):
            writer.close()


@asynccontextmanager
async def pipes(port: int, count: int) -> AsyncIterator[list[Pipe]]:
    """So many relays to one port."""
    made = [Pipe(port) for _ in range(count)]
    servers = [await asyncio.start_server(pipe.take, "127.0.0.1", 0) for pipe in made]
    for pipe, server in zip(made, servers, strict=True):
        pipe.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        for pipe, server in zip(made, servers, strict=True):
            pipe.free()
            server.close()
            pipe.cut()
        await asyncio.sleep(0)  # the transports hear of it
