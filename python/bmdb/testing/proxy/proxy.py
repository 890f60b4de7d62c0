"""The proxy and the switches that tests throw.

All switches are context managers (or take effect at once, like `reset`) and have taken effect when they return.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self, TypedDict, TypeVar, Unpack

from psycopg.conninfo import make_conninfo

from bmdb.testing.proxy.link import Encryption
from bmdb.testing.proxy.rules import (
    ConnectionRecord,
    Cut,
    CutRule,
    Direction,
    ErrorRule,
    HoldRule,
    Mode,
    Rule,
    Selector,
    Severity,
    sql_pattern,
)
from bmdb.testing.proxy.service import HOST, Service
from bmdb.testing.proxy.statements import Statement
from bmdb.testing.proxy.wire import Interpreter, Upstream

AnyRule = TypeVar("AnyRule", bound=Rule)


class Where(TypedDict, total=False):
    """The keywords of Selector: which connections a switch applies to."""

    application_name: str
    connection: int
    executed: str


class Proxy:
    """A proxy on a free loopback port in front of one PostgreSQL server; close it, or use it as a context manager.

    `host` and `port` say where the server listens (a host that begins with a slash is a socket directory). `encryption`
    "refuse" answers requests for TLS or GSS encryption with no; "pass" lets the server answer, and traffic that is then
    encrypted is carried without looking into it, so that no rule strikes (modes and resets still work). `interpreter`
    may have something else said to either side; rules and `statements` see what the client said.
    """

    def __init__(
        self, host: str, port: int, *, encryption: Encryption = "refuse", interpreter: Interpreter | None = None
    ) -> None:
        self._service = Service(Upstream(host, port, interpreter), encryption)
        self.host = HOST
        self.port = self._service.port

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Reset all connections and end the proxy's thread. Raises the first error of its own code, if any."""
        self._service.close()

    # What it saw.

    def conninfo(self, dsn: str, **parameters: str) -> str:
        """The connection string with its host and port replaced by the proxy's, and other parameters set as given."""
        return make_conninfo(dsn, **{"host": self.host, "hostaddr": self.host, "port": str(self.port), **parameters})

    @property
    def connections(self) -> list[ConnectionRecord]:
        """All connections accepted so far, oldest first; each record goes on changing while its connection lives."""
        return self._service.records()

    def statements(self, matching: str | None = None, **where: Unpack[Where]) -> list[Statement]:
        """The executions seen so far whose text matches, in order of arrival, including those that a rule kept back."""
        pattern = None if matching is None else sql_pattern(matching)
        selector = Selector(**where)
        log = self._service.call(lambda control: list(control.statements))
        records = self._service.records()
        return [
            statement
            for statement in log
            if (pattern is None or pattern.search(statement.text)) and selector.accepts(records[statement.connection])
        ]

    def count(self, matching: str | None = None, **where: Unpack[Where]) -> int:
        """How many executions match."""
        return len(self.statements(matching, **where))

    # Rules: they strike at statements. `matching` is a pattern for SQL text on one line, None means a commit.

    @contextlib.contextmanager
    def _in_force(self, rule: AnyRule) -> Iterator[AnyRule]:
        self._service.call(lambda control: control.add_rule(rule))
        try:
            yield rule
        finally:
            self._service.call(lambda control: control.remove_rule(rule))

    def cutting_before(
        self, matching: str | None, *, how: Cut = "reset", times: int | None = 1, skip: int = 0, **where: Unpack[Where]
    ) -> AbstractContextManager[CutRule]:
        """Break the connection instead of forwarding a matching statement.

        `how` is "reset" (a TCP reset), "close" (an orderly end) or "silence" (open, but nothing passes any more).
        """
        return self._in_force(CutRule(matching, Selector(**where), before=True, how=how, times=times, skip=skip))

    def cutting_after(
        self, matching: str | None, *, how: Cut = "reset", times: int | None = 1, skip: int = 0, **where: Unpack[Where]
    ) -> AbstractContextManager[CutRule]:
        """Forward a matching statement, and break the connection once the server has answered that it succeeded.

        The client gets no part of the answer. An answer that it failed is forwarded, and the rule keeps its time.
        """
        return self._in_force(CutRule(matching, Selector(**where), before=False, how=how, times=times, skip=skip))

    def cutting_before_commit(
        self, *, how: Cut = "reset", times: int | None = 1, skip: int = 0, **where: Unpack[Where]
    ) -> AbstractContextManager[CutRule]:
        """`cutting_before` for COMMIT, END and RELEASE SAVEPOINT: the transaction is rolled back."""
        return self.cutting_before(None, how=how, times=times, skip=skip, **where)

    def cutting_after_commit(
        self, *, how: Cut = "reset", times: int | None = 1, skip: int = 0, **where: Unpack[Where]
    ) -> AbstractContextManager[CutRule]:
        """`cutting_after` for COMMIT, END and RELEASE SAVEPOINT: committed, but the client does not know."""
        return self.cutting_after(None, how=how, times=times, skip=skip, **where)

    def holding_before(
        self, matching: str | None = None, *, times: int | None = 1, skip: int = 0, **where: Unpack[Where]
    ) -> AbstractContextManager[HoldRule]:
        """Keep a matching statement (by default a commit) from the server until the rule's `release` or its end."""
        return self._in_force(HoldRule(matching, Selector(**where), before=True, times=times, skip=skip))

    def holding_after(
        self, matching: str | None = None, *, times: int | None = 1, skip: int = 0, **where: Unpack[Where]
    ) -> AbstractContextManager[HoldRule]:
        """Keep the server's answer to a matching statement from the client until the rule's `release` or its end."""
        return self._in_force(HoldRule(matching, Selector(**where), before=False, times=times, skip=skip))

    def injecting(
        self,
        sqlstate: str,
        matching: str | None = None,
        *,
        message: str = "injected by the proxy",
        severity: Severity = "ERROR",
        fields: Mapping[str, str] | None = None,
        executed: bool = False,
        times: int | None = 1,
        skip: int = 0,
        connection: int | None = None,
        application_name: str | None = None,
    ) -> AbstractContextManager[ErrorRule]:
        """Answer a matching statement (by default a commit) with an error.

        Instead of executing it: the server's transaction is aborted for real, at a COMMIT rolled back. With `executed`
        the server did execute it, and only its answer is replaced. `fields` may name detail, hint, schema, table,
        column and constraint. FATAL and PANIC also end the connection.
        """
        rule = ErrorRule(
            matching,
            Selector(application_name, connection),
            sqlstate=sqlstate,
            message=message,
            severity=severity,
            fields=fields or {},
            before=not executed,
            times=times,
            skip=skip,
        )
        return self._in_force(rule)

    # Modes: they last, for whole connections.

    @contextlib.contextmanager
    def _lasting(self, mode: Mode) -> Iterator[None]:
        self._service.call(lambda control: control.add_mode(mode))
        try:
            yield
        finally:
            self._service.call(lambda control: control.remove_mode(mode))

    def swallowing(self, direction: Direction = "both", **where: Unpack[Where]) -> AbstractContextManager[None]:
        """Read and drop: a dead cable. New connections are accepted and get no answer.

        A connection that lost bytes, or its end, stays dead afterwards; one that was idle all the time goes on.
        """
        return self._lasting(Mode("swallow", direction, Selector(**where)))

    def freezing(self, direction: Direction = "both", **where: Unpack[Where]) -> AbstractContextManager[None]:
        """Forward nothing, lose nothing: traffic goes on afterwards where it stopped."""
        return self._lasting(Mode("freeze", direction, Selector(**where)))

    def delaying(
        self, seconds: float, direction: Direction = "both", **where: Unpack[Where]
    ) -> AbstractContextManager[None]:
        """Forward every piece of traffic `seconds` later."""
        return self._lasting(Mode("delay", direction, Selector(**where), seconds))

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuse new connections (ECONNREFUSED); those that exist go on."""
        self._service.refuse()
        try:
            yield
        finally:
            self._service.listen()

    @contextlib.contextmanager
    def resetting(self, every: int = 1) -> Iterator[None]:
        """Accept, then at once reset, every `every`-th new connection."""
        self._service.reset_every(every)
        try:
            yield
        finally:
            self._service.reset_every(None)

    def reset(self, *, how: Cut = "reset", **where: Unpack[Where]) -> int:
        """Break the selected open connections now; how many there were."""
        return self._service.break_off(Selector(**where), how)
