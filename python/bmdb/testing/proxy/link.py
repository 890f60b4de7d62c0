"""One client's connection through the proxy, from its first byte to the end of both sockets."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, Literal

from bmdb.testing.proxy import framing
from bmdb.testing.proxy.exchange import Exchange
from bmdb.testing.proxy.framing import FrameReader, FramingError, Message
from bmdb.testing.proxy.rules import Cut, Direction
from bmdb.testing.proxy.wire import Wire, forever

Encryption = Literal["refuse", "pass"]


class Link:
    """Carries one client's traffic to the server and back."""

    def __init__(self, wire: Wire, encryption: Encryption) -> None:
        self.wire = wire
        self._encryption = encryption
        self._frames = FrameReader(untyped=True)
        self._early: deque[Message] = deque()

    async def run(self) -> None:
        """Serve the connection until one side ends it, or it is broken off."""
        conversation = asyncio.ensure_future(self._converse())
        outcome: BaseException | None = None
        try:
            either: set[asyncio.Future[Any]] = {conversation, self.wire.broken}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            conversation.cancel()
            (outcome,) = await asyncio.gather(conversation, return_exceptions=True)
            how: Cut = "close"
            if self.wire.broken.done():
                how = self.wire.broken.result()
            elif isinstance(outcome, OSError | FramingError):
                how = "reset"
            await self.wire.shut(how)
        if isinstance(outcome, Exception) and not isinstance(outcome, OSError | FramingError):
            raise outcome

    async def _converse(self) -> None:
        message = await self._first()
        while message.code in (framing.SSL_REQUEST, framing.GSS_REQUEST):
            if self._encryption == "refuse":
                self.wire.write("to_client", b"N")
            elif await self._encrypted(message):
                return
            message = await self._first()
        if message.starts_session:
            parameters = framing.startup_parameters(message)
            record = self.wire.record
            record.application_name = parameters.get("application_name")
            record.user = parameters.get("user")
            record.database = parameters.get("database", record.user)
        elif message.code != framing.CANCEL_REQUEST:
            raise FramingError(f"unknown request {message.code}")
        # Asked again: some modes select connections by what the startup packet has just told.
        if not await self.wire.admits("to_server"):
            await forever()
        await self.wire.connect()
        self.wire.send("to_server", [message])
        if message.starts_session:
            exchange = Exchange(self.wire, self._frames)
            await _until_one_ends(exchange.pump_to_server(), exchange.pump_to_client())
        else:
            # The server has acted on a cancel request when it closes the connection that brought it.
            await self.wire.receive("to_client")

    async def _first(self) -> Message:
        while not self._early:
            data = await self.wire.receive("to_server")
            if not data:
                raise ConnectionResetError("the client left before it said what it wants")
            self._early += self._frames.feed(data)
        return self._early.popleft()

    async def _encrypted(self, request: Message) -> bool:
        """Pass a request for encryption on; True when the server agreed and the encrypted conversation is over."""
        await self.wire.connect()
        self.wire.send("to_server", [request])
        consent = await self.wire.receive("to_client")
        self.wire.write("to_client", consent)
        if consent == b"N":
            return False
        await _until_one_ends(self._copy("to_server"), self._copy("to_client"))
        return True

    async def _copy(self, direction: Direction) -> None:
        while data := await self.wire.receive(direction):
            self.wire.write(direction, data)
            await self.wire.drain(direction)


async def _until_one_ends(*pumps: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.ensure_future(pump) for pump in pumps]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
