"""The two sockets of one client's connection: reading and writing under the modes in force, and breaking off."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from bmdb.testing.proxy.control import Control
from bmdb.testing.proxy.framing import Message
from bmdb.testing.proxy.rules import ConnectionRecord, Cut, Direction, HoldRule, Rule

CHUNK = 65536
CLOSING_SECONDS = 1.0

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Interpreter(Protocol):
    """Stands between client and server, and says what each is to hear in place of what the other said."""

    def __call__(self, direction: Direction, message: Message) -> Iterable[Message]:
        """What goes on in that direction in place of the message."""
        ...


@dataclass(frozen=True)
class Upstream:
    """Where the server listens: a host and port, or a socket directory (a host that begins with a slash) and port."""

    host: str
    port: int
    interpreter: Interpreter | None = None

    async def connect(self) -> Streams:
        """Open a connection. Raises OSError."""
        if self.host.startswith("/"):
            return await asyncio.open_unix_connection(f"{self.host}/.s.PGSQL.{self.port}")
        return await asyncio.open_connection(self.host, self.port)


async def forever() -> None:
    """Wait for cancellation."""
    await asyncio.get_running_loop().create_future()


class Wire:
    """A client's socket and, once `connect` was called, the server's; every byte between them passes here."""

    def __init__(self, control: Control, upstream: Upstream, record: ConnectionRecord, client: Streams) -> None:
        self.control = control
        self.record = record
        self.broken: asyncio.Future[Cut] = asyncio.get_running_loop().create_future()
        self._upstream = upstream
        self._client_reader, self._client = client
        self._server_reader: asyncio.StreamReader | None = None
        self._server: asyncio.StreamWriter | None = None
        # Directions that lost bytes: they can never be in step again.
        self._dead: set[Direction] = set()
        self._struck: Rule | None = None

    async def connect(self) -> None:
        """Connect to the server unless that is done. Raises OSError."""
        if self._server is None:
            self._server_reader, self._server = await self._upstream.connect()

    async def receive(self, direction: Direction) -> bytes:
        """The next bytes that may travel in this direction; empty at the end of the stream."""
        reader = self._client_reader if direction == "to_server" else self._server_reader
        assert reader is not None
        while True:
            try:
                data = await reader.read(CHUNK)
            except ConnectionError:
                data = b""
            if await self.admits(direction):
                return data
            if not data:
                # The end of a swallowed stream is swallowed too, as a dead cable would.
                await forever()

    async def admits(self, direction: Direction) -> bool:
        """Whether bytes may travel in this direction, after waiting for what freezes or delays it."""
        await self.control.pass_gate(self.record, direction)
        if self.control.swallows(self.record, direction):
            self._dead.add(direction)
        return direction not in self._dead

    def send(self, direction: Direction, messages: Iterable[Message]) -> None:
        """Write messages towards one side, unless that direction is dead."""
        interpreter = self._upstream.interpreter
        if interpreter is not None:
            messages = [said for message in messages for said in interpreter(direction, message)]
        self.write(direction, b"".join(message.raw for message in messages))

    def write(self, direction: Direction, data: bytes) -> None:
        """Write bytes towards one side, unless that direction is dead."""
        if direction in self._dead:
            return
        if direction == "to_server":
            self.record.bytes_to_server += len(data)
        else:
            self.record.bytes_to_client += len(data)
        self._writer(direction).write(data)

    async def drain(self, direction: Direction) -> None:
        """Wait until the side has taken most of what was written. Raises ConnectionError when it is gone."""
        await self._writer(direction).drain()

    def _writer(self, direction: Direction) -> asyncio.StreamWriter:
        writer = self._server if direction == "to_server" else self._client
        assert writer is not None
        return writer

    def break_off(self, how: Cut, rule: Rule | None = None) -> None:
        """Break the connection on purpose; `rule` has struck once both sockets are closed (or silent)."""
        self.record.cut = True
        if how == "silence":
            self._dead |= {"to_server", "to_client"}
            if rule is not None:
                rule.strike()
        elif not self.broken.done():
            self._struck = rule
            self.broken.set_result(how)

    async def cut(self, how: Cut, rule: Rule) -> None:
        """Break off and return only if the connection stays open, silently."""
        self.break_off(how, rule)
        if how != "silence":
            await forever()

    async def hold(self, rule: HoldRule) -> None:
        """Wait until the rule is released."""
        released = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            loop.call_soon_threadsafe(released.set)

        try:
            if rule.enter(wake):
                rule.strike()
                await released.wait()
        finally:
            rule.leave(wake)

    async def shut(self, how: Cut) -> None:
        """Close both sockets, the client's by a reset if asked."""
        if how == "reset":
            # Lingering for no time turns the close into a reset.
            with contextlib.suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                self._client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._client.transport.abort()
        for writer in (self._client, self._server):
            if writer is None:
                continue
            writer.close()
            try:
                await asyncio.wait_for(writer.wait_closed(), CLOSING_SECONDS)
            except TimeoutError:
                writer.transport.abort()
            except OSError:
                pass
        self.record.open = False
        if self._struck is not None:
            self._struck.strike()
