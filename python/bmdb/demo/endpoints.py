"""The machines' management endpoints: one TCP port of loopback each, served by a thread of the demo.

A worker sends `start MACHINE TOKEN` and gets `key HEX`, the public key of the agent that was started. An endpoint knows
the highest token it has seen and turns down a lower one: this is how something outside the database is kept safe from a
worker that has been succeeded.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import secrets
import socket
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from bmdb.demo.rack import Behaviour, RackMachine
from bmdb.errors import ConfigError

_OTHER_FILES = 256


class Endpoint:
    """One machine's endpoint. Its port is bound from the beginning; connections are refused until it listens."""

    def __init__(self, machine: RackMachine) -> None:
        self.machine = machine
        self.key = secrets.token_bytes(32)
        self.tokens: list[int] = []
        self.bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self.bound.bind(("127.0.0.1", 0))
        except BaseException:
            self.bound.close()
            raise
        self.address = "{}:{}".format(*self.bound.getsockname())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one connection."""
        try:
            with contextlib.suppress(OSError, ValueError):
                request = (await reader.readline()).split()
                if self.machine.behaviour is Behaviour.HANGS:
                    await reader.read()
                elif len(request) == 3 and request[0] == b"start":
                    await asyncio.sleep(self.machine.delay)
                    writer.write(self._start(int(request[2])).encode())
                    await writer.drain()
        finally:
            writer.close()

    def _start(self, token: int) -> str:
        if self.tokens and token < max(self.tokens):
            return f"token {token} is older than {max(self.tokens)}\n"
        self.tokens.append(token)
        return f"key {self.key.hex()}\n"


class Endpoints:
    """All of them, from entering to leaving the block."""

    def __init__(self, rack: Sequence[RackMachine]) -> None:
        self._rack = rack
        self._served: dict[tuple[str, str], Endpoint] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="demo-endpoints", daemon=True)
        self._begun = False
        self._servers: list[asyncio.Server] = []
        self._recovering: set[asyncio.Task[None]] = set()

    def of(self, machine: RackMachine) -> Endpoint:
        """The endpoint of a machine in the rack."""
        return self._served[machine.provider, machine.provider_id]

    def begin(self) -> None:
        """Starts the clock of the endpoints that recover; only the first call does."""
        if self._begun:
            return
        self._begun = True
        asyncio.run_coroutine_threadsafe(self._recover(), self._loop).result()

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            _allow_files(len(self._rack) + _OTHER_FILES)
            for machine in self._rack:
                self._served[machine.provider, machine.provider_id] = Endpoint(machine)
            asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all of them. Idempotent."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> None:
        for endpoint in self._served.values():
            if endpoint.machine.behaviour in (Behaviour.ANSWERS, Behaviour.HANGS):
                await self._listen(endpoint)

    async def _listen(self, endpoint: Endpoint) -> None:
        self._servers.append(await asyncio.start_server(endpoint.serve, sock=endpoint.bound))

    async def _recover(self) -> None:
        for endpoint in self._served.values():
            if endpoint.machine.behaviour is Behaviour.RECOVERS:
                self._loop.call_later(endpoint.machine.after, self._recovered, endpoint)

    def _recovered(self, endpoint: Endpoint) -> None:
        task = self._loop.create_task(self._listen(endpoint))
        # A loop keeps only weak references to its tasks.
        self._recovering.add(task)
        task.add_done_callback(self._recovering.discard)

    async def _close(self) -> None:
        # What is cancelled here is no error, but Python 3.11 prints it as one when it was answering a connection.
        self._loop.set_exception_handler(lambda _loop, _context: None)
        # A connection that was just accepted takes some turns of the loop until it is the server's and has a task.
        await asyncio.sleep(0.02)
        for server in self._servers:
            server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        # Connections close in the next turn of the loop.
        await asyncio.sleep(0)
        for endpoint in self._served.values():
            endpoint.bound.close()


def _allow_files(wanted: int) -> None:
    """Lets this process open so many files. Raises ConfigError when the system does not allow that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise ConfigError(
            f"so many machines need {wanted} open files, and the system allows {hard}: use fewer machines"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
