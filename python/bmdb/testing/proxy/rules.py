"""What the proxy shall do to the traffic: which connections, which statements, and what then.

Pure apart from the events by which a test waits for a rule to strike.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from bmdb.testing.proxy.statements import Statement

Direction = Literal["to_server", "to_client", "both"]
Cut = Literal["reset", "close", "silence"]
Severity = Literal["ERROR", "FATAL", "PANIC"]

DEFAULT_TIMEOUT = 10.0


@dataclass
class ConnectionRecord:
    """One client connection as the proxy saw it; kept after its end.

    `index` counts from 0 in the order of acceptance (a cancel request is a connection too); `application_name`,
    `database` and `user` come from the startup packet (None until it came); `statements` counts executions, `batches`
    requests that end in ReadyForQuery, `bytes_to_server` and `bytes_to_client` what was forwarded; `cut` tells that the
    proxy broke it on purpose; `executed` holds the distinct texts.
    """

    index: int
    application_name: str | None = None
    database: str | None = None
    user: str | None = None
    open: bool = True
    cut: bool = False
    statements: int = 0
    batches: int = 0
    bytes_to_server: int = 0
    bytes_to_client: int = 0
    executed: set[str] = field(default_factory=set, repr=False)


@dataclass(frozen=True, slots=True)
class Selector:
    """Which connections something applies to; every condition that is set must hold.

    `application_name` is a pattern searched for in the startup packet's value, `connection` an index, `executed` a
    pattern that some statement on the connection must have matched (so the heartbeat's can be told from others).
    """

    application_name: str | None = None
    connection: int | None = None
    executed: str | None = None

    def accepts(self, record: ConnectionRecord) -> bool:
        """Whether the connection is meant."""
        if self.connection is not None and record.index != self.connection:
            return False
        if self.application_name is not None and not re.search(self.application_name, record.application_name or ""):
            return False
        if self.executed is not None:
            pattern = sql_pattern(self.executed)
            return any(pattern.search(text) for text in record.executed)
        return True


def sql_pattern(pattern: str) -> re.Pattern[str]:
    """A regular expression for SQL text on one line: case is ignored, any white space in it matches one space."""
    return re.compile(re.sub(r"\s+", " ", pattern), re.IGNORECASE)


class Rule:
    """Strikes at matching statements, at most `times` times (None: always) after letting `skip` matches pass.

    Base of the actions below. `hits` counts the strikes that have taken effect.
    """

    # Whether the decision falls before the statement reaches the server.
    before: bool = True

    def __init__(self, matching: str | None, selector: Selector, *, times: int | None, skip: int) -> None:
        self._pattern = None if matching is None else sql_pattern(matching)
        self._selector = selector
        self._left = times
        self._skip = skip
        self._hits = 0
        self._struck = threading.Condition()

    def chooses(self, record: ConnectionRecord, statement: Statement) -> bool:
        """Whether the rule strikes at this statement; uses up one of its times (or skips) if the statement matches."""
        wanted = statement.commits if self._pattern is None else self._pattern.search(statement.text) is not None
        if self._left == 0 or not wanted or not self._selector.accepts(record):
            return False
        if self._skip > 0:
            self._skip -= 1
            return False
        if self._left is not None:
            self._left -= 1
        return True

    def refund(self) -> None:
        """Give back a time that was used up without taking effect."""
        if self._left is not None:
            self._left += 1

    def strike(self) -> None:
        """Record that the rule has taken effect."""
        with self._struck:
            self._hits += 1
            self._struck.notify_all()

    @property
    def hits(self) -> int:
        """How often the rule has taken effect."""
        with self._struck:
            return self._hits

    def wait(self, timeout: float = DEFAULT_TIMEOUT, *, hits: int = 1) -> None:
        """Wait until the rule has taken effect `hits` times. Raises TimeoutError after `timeout` seconds."""
        with self._struck:
            if not self._struck.wait_for(lambda: self._hits >= hits, timeout):
                raise TimeoutError(f"the proxy's rule took effect {self._hits} times in {timeout} s, not {hits}")

    def end(self) -> None:
        """Called in the proxy's thread when the rule is withdrawn."""


class CutRule(Rule):
    """Breaks the connection, instead of forwarding the statement or once the server has answered that it succeeded."""

    def __init__(
        self, matching: str | None, selector: Selector, *, before: bool, how: Cut, times: int | None, skip: int
    ) -> None:
        super().__init__(matching, selector, times=times, skip=skip)
        self.before = before
        self.how = how


class HoldRule(Rule):
    """Keeps the statement from the server, or its answer from the client, until `release` or the end of the rule."""

    def __init__(self, matching: str | None, selector: Selector, *, before: bool, times: int | None, skip: int) -> None:
        super().__init__(matching, selector, times=times, skip=skip)
        self.before = before
        self._wakers: set[Callable[[], None]] = set()
        self._released = False

    def release(self) -> None:
        """Let everything held go on, and hold nothing more. May be called from any thread."""
        with self._struck:
            self._released = True
            wakers = list(self._wakers)
        for wake in wakers:
            wake()

    @property
    def released(self) -> bool:
        """Whether `release` was called."""
        with self._struck:
            return self._released

    def enter(self, wake: Callable[[], None]) -> bool:
        """Register what wakes a held statement; False if the rule was released already."""
        with self._struck:
            self._wakers.add(wake)
            return not self._released

    def leave(self, wake: Callable[[], None]) -> None:
        """Forget what `enter` registered."""
        with self._struck:
            self._wakers.discard(wake)

    def end(self) -> None:
        self.release()


class ErrorRule(Rule):
    """Answers with an error: instead of executing the statement, or (not `before`) although the server executed it.

    Instead: the server's transaction is aborted for real (at a COMMIT rolled back), so both sides agree on its state.
    FATAL and PANIC close the connection after the answer, as the server does.
    """

    def __init__(
        self,
        matching: str | None,
        selector: Selector,
        *,
        sqlstate: str,
        message: str,
        severity: Severity,
        fields: Mapping[str, str],
        before: bool,
        times: int | None,
        skip: int,
    ) -> None:
        super().__init__(matching, selector, times=times, skip=skip)
        self.sqlstate = sqlstate
        self.message = message
        self.severity = severity
        self.fields = dict(fields)
        self.before = before


@dataclass(frozen=True)
class Mode:
    """Something that lasts, for all traffic of the selected connections in one or both directions.

    "swallow" reads and drops (a connection that lost bytes stays dead for good); "freeze" stops forwarding and goes on
    where it stopped; "delay" forwards everything `seconds` later.
    """

    kind: Literal["swallow", "freeze", "delay"]
    direction: Direction
    selector: Selector
    seconds: float = 0.0

    def applies(self, record: ConnectionRecord, direction: Direction) -> bool:
        """Whether this direction of the connection is meant."""
        return self.direction in ("both", direction) and self.selector.accepts(record)
