"""The proxy's thread: an event loop, a listening socket, and the links that it accepts."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from bmdb.testing.proxy.control import Control
from bmdb.testing.proxy.link import Encryption, Link
from bmdb.testing.proxy.rules import DEFAULT_TIMEOUT, ConnectionRecord, Cut, Selector
from bmdb.testing.proxy.wire import Upstream, Wire

T = TypeVar("T")

HOST = "127.0.0.1"


class Service:
    """Listens on a free loopback port as soon as it is made; its methods may be called from any other thread."""

    def __init__(self, upstream: Upstream, encryption: Encryption) -> None:
        self._upstream = upstream
        self._encryption = encryption
        self._control = Control()
        self._records: list[ConnectionRecord] = []
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[Exception] = []
        self._reset_every: int | None = None
        self._countdown = 0
        self._listener: asyncio.Server | None = None
        self._stopping = asyncio.Event()
        self._port = 0
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="pgwire-proxy", daemon=True)
        self._thread.start()
        self._loop = started.result(DEFAULT_TIMEOUT)

    @property
    def port(self) -> int:
        """The port, the same as long as the service lives."""
        return self._port

    def close(self) -> None:
        """Reset all connections and end the thread. Raises the first error of the proxy's own code, if any."""
        if self._thread.is_alive():
            self.call(lambda _: self._stopping.set())
            self._thread.join(DEFAULT_TIMEOUT)
            if self._thread.is_alive():
                raise TimeoutError("the proxy's thread did not end")
        if self._failures:
            raise self._failures[0]

    def call(self, function: Callable[[Control], T]) -> T:
        """Run a function of the control in the service's thread and wait for its result."""

        async def apply() -> T:
            return function(self._control)

        return self._await(apply())

    def records(self) -> list[ConnectionRecord]:
        """The connections accepted so far."""
        return self.call(lambda _: list(self._records))

    def break_off(self, selector: Selector, how: Cut) -> int:
        """Break the selected open connections; how many there were."""

        def strike(_: Control) -> int:
            whole = [link for link in self._links if not link.wire.broken.done()]
            chosen = [link for link in whole if selector.accepts(link.wire.record)]
            for link in chosen:
                link.wire.break_off(how)
            return len(chosen)

        return self.call(strike)

    def reset_every(self, every: int | None) -> None:
        """Reset each `every`-th connection right after it was accepted; None: reset none."""

        def switch(_: Control) -> None:
            self._reset_every, self._countdown = every, every or 0

        self.call(switch)

    def listen(self) -> None:
        """Accept connections again."""
        self._await(self._open())

    def refuse(self) -> None:
        """Close the listening socket, so that the system refuses connections."""

        self._await(self._stop_listening())

    def _await(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEFAULT_TIMEOUT)

    def _run(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        try:
            asyncio.run(self._serve(started))
        except Exception as error:
            if started.done():
                self._failures.append(error)
            else:
                started.set_exception(error)

    async def _serve(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        await self._open()
        started.set_result(asyncio.get_running_loop())
        await self._stopping.wait()
        await self._stop_listening()
        for link in self._links:
            link.wire.break_off("reset")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DEFAULT_TIMEOUT / 2)

    async def _open(self) -> None:
        if self._listener is None:
            # SO_REUSEADDR, which this sets, lets the port be taken again while old connections linger.
            listening = socket.create_server((HOST, self._port), backlog=256)
            self._port = listening.getsockname()[1]
            self._listener = await asyncio.start_server(self._accept, sock=listening)

    async def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is None:
            return
        # A connection that was accepted just now becomes a transport in a task of asyncio's, which leaves it open for
        # ever if the server is closed by then. So nothing more is accepted, then those tasks run, then it is closed.
        for listening in listener.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        for _ in range(5):
            await asyncio.sleep(0)
        listener.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._stopping.is_set():
            writer.transport.abort()
            return
        # asyncio asks for this only on sockets that name their protocol, which those of our listener do not. Without
        # it every answer waits 40 ms for the client's acknowledgement of the one before.
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        record = ConnectionRecord(len(self._records))
        self._records.append(record)
        link = Link(Wire(self._control, self._upstream, record, (reader, writer)), self._encryption)
        if self._reset_every is not None:
            self._countdown -= 1
            if self._countdown == 0:
                self._countdown = self._reset_every
                link.wire.break_off("reset")
        task = asyncio.current_task()
        assert task is not None
        self._links.add(link)
        self._tasks.add(task)
        try:
            await link.run()
        except Exception as error:
            # Kept for `close`, which raises it in the thread of the test.
            self._failures.append(error)
        finally:
            self._links.discard(link)
            self._tasks.discard(task)
