"""The retry machine driven against a server that may do anything: what is reported has to be what happened."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmdb._core import RetryMachine, classify_sqlstate

Row = tuple[int, int]
Draw = Callable[[list[Any]], Any]

PROTOCOLS = ["rollback", "savepoint"]
FAILURES = ["retryable", "disconnected", "overloaded", "ambiguous", "permanent"]
FIRST_DELAY = 0.4
MAX_DELAY = 0.5


class ServerError(Exception):
    """What a statement, BEGIN or COMMIT fails with; a disconnection has closed the link as well."""

    def __init__(self, failure: str) -> None:
        super().__init__(failure)
        self.failure = failure


class CallbackError(Exception):
    """The callback's own."""


@dataclasses.dataclass
class Link:
    """A connection and the transaction open on it: the rows written so far, or None."""

    up: bool = True
    rows: list[Row] | None = None
    error: str | None = None


class Server:
    """Keeps what was committed, in `landed`, one entry for each transaction."""

    def __init__(self, protocol: str, draw: Draw) -> None:
        self.protocol = protocol
        self.draw = draw
        self.landed: list[list[Row]] = []
        self.late: list[list[Row]] = []
        self.in_doubt = False

    def begin(self, link: Link) -> None:
        assert link.rows is None, "BEGIN inside a transaction"
        if not link.up:
            raise ServerError("disconnected")
        failure = self.draw([None] * 6 + FAILURES)
        if failure is not None:
            link.up = False
            raise ServerError(failure)
        link.rows, link.error = [], None

    def write(self, link: Link, row: Row) -> None:
        assert link.rows is not None or link.error == "disconnected", "a statement outside a transaction"
        if not link.up:
            raise ServerError("disconnected")
        if link.error is not None:
            raise ServerError("permanent")
        failure = self.draw([None] * 6 + FAILURES)
        if failure is None:
            assert link.rows is not None
            link.rows.append(row)
            return
        link.error = failure
        if failure == "disconnected":
            link.up, link.rows = False, None
        raise ServerError(failure)

    def commit(self, link: Link) -> None:
        """Commits, or raises; an error may hide a commit that took effect, or that will."""
        rows, aborted = link.rows, link.error is not None
        assert rows is not None, "COMMIT outside a transaction"
        reply = self.draw([None] * 3 + FAILURES)
        if aborted:
            # Both servers answer COMMIT with success here, and with ROLLBACK for its tag.
            link.rows = None
            return
        if reply is None:
            self.landed.append(rows)
            link.rows = None
            return
        if reply == "retryable":
            link.error = reply
            raise ServerError(reply)
        if self.protocol == "rollback" and reply in {"permanent", "overloaded"}:
            link.error = reply
            raise ServerError(reply)
        self.in_doubt = True
        fate = self.draw(["aborted", "committed", "late"])
        if fate == "committed":
            self.landed.append(rows)
        elif fate == "late":
            self.late.append(rows)
        link.rows = None
        link.up = reply != "disconnected"
        raise ServerError(reply)

    def restart(self, link: Link) -> None:
        assert self.protocol == "savepoint", "PostgreSQL was asked to go back to the savepoint"
        assert link.rows is not None, "ROLLBACK TO SAVEPOINT outside a transaction"
        if self.draw([False, False, False, True]):
            link.rows, link.error = None, None
            raise ServerError(self.draw(FAILURES))
        link.rows, link.error = [], None

    def settle_late(self) -> None:
        """Commits that are under way come to their end, one way or the other."""
        for rows in self.late:
            if self.draw([True, False]):
                self.landed.append(rows)
        self.late = []


@dataclasses.dataclass
class Course:
    """What a driver saw: the verdict, the runs of the callback, and what the last of them meant to write.

    `conflicts` counts those met at BEGIN, before the callback; `trouble` is the last event that was a failure.
    """

    verdict: str = ""
    attempts: int = 0
    runs: int = 0
    conflicts: int = 0
    intended: list[Row] = dataclasses.field(default_factory=list)
    trouble: str = ""


def callback(server: Server, link: Link, course: Course) -> None:
    """Writes rows, and treats errors as badly as a user's code may."""
    course.intended = []
    for index in range(server.draw([1, 2, 3])):
        row = (course.runs, index)
        course.intended.append(row)
        try:
            server.write(link, row)
        except ServerError:
            manner = server.draw(["raise", "wrap", "swallow"])
            if manner == "raise":
                raise
            if manner == "wrap":
                raise CallbackError from None  # which still leaves the context
    if server.draw([False] * 5 + [True]):
        raise CallbackError


def failure_behind(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, ServerError):
            return error.failure
        error = error.__cause__ or error.__context__
    return None


def answer(kind: str, detail: Any, server: Server, link: Link, course: Course) -> tuple[str, str | None]:
    """Does what the machine asks for and tells the event, as a driver of a real connection does."""
    match kind:
        case "begin":
            if detail:
                link.up, link.rows, link.error = True, None, None
            try:
                server.begin(link)
            except ServerError as error:
                course.conflicts += error.failure == "retryable"
                return "begin_failed", error.failure
            return "begun", None
        case "run":
            course.runs += 1
            assert detail == course.runs
            assert (link.rows, link.error) == ([], None), "the callback was run in a used transaction"
            try:
                callback(server, link, course)
            except (ServerError, CallbackError) as error:
                return "raised", failure_behind(error)
            return ("returned", None) if link.error is None else ("returned_after", link.error)
        case "commit":
            try:
                server.commit(link)
            except ServerError as error:
                return "commit_failed", error.failure
            return "committed", None
        case "rollback":
            link.rows = None
            return "rolled_back", None
        case "restart":
            try:
                server.restart(link)
            except ServerError:
                return "restart_failed", None
            return "restarted", None
        case "settle":
            assert server.in_doubt, "nothing to settle"
            link.up, link.rows = False, None
            if server.draw([False, False, True]):
                return "unsettled", None
            server.settle_late()
            server.in_doubt = False
            return ("settled_committed" if server.landed else "settled_aborted"), None
        case "sleep":
            return "slept", None
    raise AssertionError(f"unknown action {kind}")


def drive(machine: RetryMachine, server: Server, max_elapsed: float | None) -> Course:
    course = Course()
    link = Link()
    elapsed = 0.0
    action: tuple[Any, ...] = machine.start()
    for _ in range(500):
        if action[0] == "finish":
            _, course.verdict, course.attempts = action
            if course.verdict in {"ambiguous", "restart_failed"}:
                link.rows = None  # the connection is dropped
            assert link.rows is None, "a transaction was left open"
            server.settle_late()
            return course
        event, failure = answer(action[0], action[1] if len(action) > 1 else None, server, link, course)
        if failure is not None or event == "raised":
            course.trouble = event
        passed, random = server.draw([(0.0, 0.0), (0.01, 0.999), (0.3, 0.25)])
        elapsed += passed
        action = machine.step(event, failure, elapsed, random)
        if action[0] == "sleep":
            assert 0.0 <= action[1] <= MAX_DELAY
            assert max_elapsed is None or elapsed < max_elapsed, "a retry past the time limit"
    raise AssertionError("no verdict after 500 steps")


def follow(script: bytes) -> Draw:
    """Choices taken as the script says; once it has ended, always the first, which is the harmless one."""
    ahead = iter(script)
    return lambda choices: choices[next(ahead, 0) % len(choices)]


@settings(max_examples=2000, deadline=None)
@given(
    script=st.binary(min_size=80, max_size=80),
    protocol=st.sampled_from(PROTOCOLS),
    max_retries=st.integers(0, 4),
    max_elapsed=st.sampled_from([None, 60.0, 1.0, 0.0]),
    settles=st.booleans(),
)
def test_what_is_reported_is_what_happened(
    script: bytes, protocol: str, max_retries: int, max_elapsed: float | None, settles: bool
) -> None:
    server = Server(protocol, follow(script))
    machine = RetryMachine(protocol, max_retries, max_elapsed, FIRST_DELAY, MAX_DELAY, settles)
    course = drive(machine, server, max_elapsed)

    tries = course.runs + course.conflicts
    assert course.attempts == machine.attempts == course.runs
    assert tries <= max_retries + 1
    assert len(server.landed) <= 1, "two runs took effect"
    match course.verdict:
        case "committed":
            assert server.landed == [course.intended]
        case "ambiguous":
            assert server.in_doubt
            assert server.landed in ([], [course.intended])
        case "raise":
            assert course.trouble == "raised"
            assert server.landed == []
        case "fail":
            assert course.trouble in {"begin_failed", "returned_after", "commit_failed"}
            assert server.landed == []
        case "exhausted":
            assert tries == max_retries + 1 or max_elapsed is not None
            assert server.landed == []
        case "restart_failed":
            assert protocol == "savepoint"
            assert server.landed == []
        case other:
            raise AssertionError(f"unknown verdict {other}")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(troubles=st.lists(st.sampled_from(["statement", "commit", "connection"]), max_size=6))
def test_a_server_that_recovers_is_committed_to(protocol: str, troubles: list[str]) -> None:
    """Passing troubles, however many within the limit, end in one commit after one more run than there were."""
    machine = RetryMachine(protocol, len(troubles))
    ahead = list(troubles)
    action: tuple[Any, ...] = machine.start()
    while action[0] != "finish":
        trouble = ahead[0] if ahead else None
        event: str
        failure: str | None = None
        match action[0], trouble:
            case "run", "statement":
                event, failure = "raised", "retryable"
            case "run", "connection":
                event, failure = "returned_after", "disconnected"
            case "run", _:
                event = "returned"
            case "commit", "commit":
                event, failure = "commit_failed", "retryable"
            case "commit", _:
                event = "committed"
            case kind, _:
                plain = {"begin": "begun", "rollback": "rolled_back", "restart": "restarted", "sleep": "slept"}
                event = plain[kind]
        if failure is not None:
            ahead.pop(0)
        action = machine.step(event, failure, 0.0, 0.5)
    assert action == ("finish", "committed", len(troubles) + 1)


def test_an_event_out_of_turn_is_refused_and_changes_nothing() -> None:
    machine = RetryMachine("rollback")
    with pytest.raises(ValueError, match="does not answer"):
        machine.step("begun", None, 0.0, 0.0)
    assert machine.start() == ("begin", False)
    with pytest.raises(ValueError, match="Committed does not answer"):
        machine.step("committed", None, 0.0, 0.0)
    assert machine.step("begun", None, 0.0, 0.0) == ("run", 1)
    assert machine.start() == ("run", 1)


@pytest.mark.parametrize(
    ("event", "failure", "elapsed"),
    [
        ("began", None, 0.0),
        ("begun", "permanent", 0.0),
        ("begin_failed", None, 0.0),
        ("begin_failed", "broken", 0.0),
        ("begun", None, -1.0),
        ("begun", None, float("nan")),
        ("begun", None, float("inf")),
    ],
)
def test_an_unknown_event_is_refused(event: str, failure: str | None, elapsed: float) -> None:
    machine = RetryMachine("rollback")
    machine.start()
    with pytest.raises(ValueError, match=r"no event|unknown failure|elapsed must be"):
        machine.step(event, failure, elapsed, 0.0)
    assert machine.start() == ("begin", False)


@pytest.mark.parametrize("name", ["max_elapsed", "first_delay", "max_delay"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), 1e300])
def test_a_limit_that_is_no_duration_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        RetryMachine("rollback", **{name: value})  # type: ignore[arg-type]


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(ValueError, match="protocol"):
        RetryMachine("two-phase")


@pytest.mark.parametrize(
    ("code", "fatal", "failure"),
    [
        ("40001", False, "retryable"),
        ("40P01", False, "retryable"),
        ("CR000", False, "retryable"),
        ("40001", True, "disconnected"),
        ("57P01", True, "disconnected"),
        ("08006", False, "disconnected"),
        ("40003", True, "ambiguous"),
        ("08007", False, "ambiguous"),
        ("53300", True, "overloaded"),
        ("53100", False, "overloaded"),
        ("53100", True, "disconnected"),
        ("28P01", True, "permanent"),
        ("3D000", True, "permanent"),
        ("23505", False, "permanent"),
    ],
)
def test_a_sqlstate_tells_the_failure(code: str, fatal: bool, failure: str) -> None:
    assert classify_sqlstate(code, fatal) == failure
