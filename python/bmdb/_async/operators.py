"""What operators ask and do: why a machine is not worked on, and keeping workers away or letting them have it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from bmdb import _core, tracing
from bmdb._async.queries import AsyncQueries
from bmdb._async.transaction import run
from bmdb._core import Eligibility, Nesting, Row
from bmdb.errors import DatabaseError, Error
from bmdb.explanation import Clause, Explanation, conditions, explained, literal, unregistered
from bmdb.identity import Unique
from bmdb.model import (
    ActiveWork,
    Hold,
    Pruned,
    RegisteredEligibility,
    RegisteredProcess,
    WorkBackoff,
)
from bmdb.process import Process, name_of

__all__ = ["AsyncOperators"]

T = TypeVar("T")

# Declared once for each connection; beyond that somebody makes one anew for each call.
_MOST_DECLARED = 1000
# Seconds between two times that a connection says that a worker of a process is there.
_PAUSE = 60.0
# What a role that may only lease, or a standby, answers to a registration that is for people.
_NOT_HERE = {"42501", "25006", "42P01"}
# What happened in the last hour settles how transactions ended whose COMMIT was not answered.
_SHORTEST_HISTORY = timedelta(hours=1)
# Longer than there have been databases.
_LONGEST_HISTORY = timedelta(days=100 * 365)

# An eligibility without parameters under its fingerprint, and when a worker last asked by it.
_Wanted = tuple[str, Eligibility, datetime | None]
# What to ask about one machine: whether it meets an eligibility, and its place among others, unless a tag is not there.
_Question = tuple[str, str | None]
_Answer = tuple[Row, Row | None]


class AsyncOperators(Unique):
    """The part of a connection that is for people and their programs."""

    _core: _core.Connection
    _declared: set[tuple[str, str]]
    _introduced: dict[Process, float]

    async def explain(self, machine: UUID, process: str | Process) -> Explanation:
        """Whether the process may have this machine now, and every reason why not; `str()` of it is for people.

        Who has leased it, for this process or one that excludes it; its backoff; holds; quarantine; and which of the
        tags and conditions that the process asks for it does not meet, by what its workers have registered, or by the
        eligibility of the `Process` given. An eligible machine gets its place among all that could be leased now. What
        is decided in callbacks of workers cannot be told, and keeps nothing from being leasable.

        All of it is of one moment, unless what the process asks fails, and nothing is changed. Costs what counting the
        machines that could be leased costs.
        """
        name = name_of(process)
        _core.check_process(name)
        wanted = await self._wanted(name, process)
        with Nesting(self._core):
            asked = [await self._core.questions.about_async(eligibility) for _, eligibility, _ in wanted]
        questions = [(examined, placed) for examined, _, placed in asked]

        async def look(q: AsyncQueries) -> tuple[list[Row], list[_Answer]]:
            facts = await q._core.call_async("explain_facts", (machine, name))
            return facts, [await _examined(q, machine, name, question) for question in questions]

        answers: list[_Answer | DatabaseError] = []
        try:
            facts, told = await self._look(look)
            answers += told
        except DatabaseError:
            # It may be one of them alone.
            facts = await self._look(lambda q: q._core.call_async("explain_facts", (machine, name)))
            for question in questions:
                answers.append(await self._answered(machine, name, question))
        found: list[list[Clause]] = []
        for (fingerprint, eligibility, seen), answer in zip(wanted, answers, strict=True):
            if isinstance(answer, DatabaseError):
                text = f"what {name} asks of machines cannot be answered: {answer}"
                found.append([Clause("tag", True, text, {"eligibility": fingerprint, "sqlstate": answer.sqlstate})])
            else:
                found.append(conditions(name, fingerprint, eligibility, *answer, seen))
        kinds = [(row[0], row[1]) for row in facts]
        if not wanted:
            found.append([unregistered(name, any(kind == "process" for kind, _ in kinds))])
        return explained(machine, name, kinds, found)

    async def _wanted(self, name: str, process: str | Process) -> list[_Wanted]:
        """What the process asks of machines, by itself or by what its workers have registered, and when they asked."""
        declared = await self.eligibilities(name)
        if isinstance(process, Process) and process.eligible is not None:
            fingerprint = process.eligible.fingerprint
            seen = next((each.seen for each in declared if each.fingerprint == fingerprint), None)
            return [(fingerprint, _written(process.eligible), seen)]
        return [(each.fingerprint, _eligibility(each), each.seen) for each in declared]

    async def _answered(self, machine: UUID, name: str, question: _Question) -> _Answer | DatabaseError:
        try:
            return await self._look(lambda q: _examined(q, machine, name, question))
        except DatabaseError as error:
            return error

    async def registered(self) -> list[RegisteredProcess]:
        """The processes that workers have registered, by name: their exclusions, crash backoffs and quarantines."""
        return await self._look(lambda q: q.processes())

    async def eligibilities(self, process: str | Process | None = None) -> list[RegisteredEligibility]:
        """What workers of this process, or of all, ask of machines, as they have registered it.

        Leaves out what nobody has asked by for an hour while other workers of the process were asking: a newer
        definition has come in its place.
        """
        name = None if process is None else name_of(process)
        return await self._look(lambda q: q.eligibilities(name))

    async def eligibility_sql(self, eligibility: RegisteredEligibility | Eligibility) -> str:
        """The whole query for the machines that need a process by this eligibility, whatever keeps workers from them.

        Raises ValueError for a tag that the database does not have.
        """
        wanted = eligibility if isinstance(eligibility, Eligibility) else _eligibility(eligibility)
        with Nesting(self._core):
            _, statement, _ = await self._core.questions.about_async(_written(wanted))
            if statement is None:
                # Says which tag is missing, and which there are.
                return await self._core.questions.backlog_async([_written(wanted)])
        return statement

    async def backlog(self, process: str | Process) -> int | None:
        """How many machines workers of the process could lease now, by any eligibility that they have registered.

        Of a `Process` that says what it asks, by that alone. None when nothing says it. What keeps a machine from being
        leased counts here as it does for a claim, since the query is made from the claim's. Raises ValueError for a tag
        that is not there any more.
        """
        name = name_of(process)
        sql = await self._backlog_sql(process)
        if sql is None:
            return None
        count: int = await self._look(lambda q: q.fetch_value(sql, name))
        return count

    async def _backlog_sql(self, process: str | Process) -> str | None:
        """The query that counts the machines that workers of process `$1` could lease now; None: nothing says which."""
        wanted = await self._wanted(name_of(process), process)
        if not wanted:
            return None
        with Nesting(self._core):
            return await self._core.questions.backlog_async([eligibility for _, eligibility, _ in wanted])

    async def prune_history(self, older_than: timedelta, *, limit: int = 10_000) -> Pruned:
        """Removes history from longer ago, by the database's clock, and tells how much; call until that is nothing.

        A month that is wholly older is dropped at once, one in each call, where this role owns it and nobody is in the
        way; of the rest at most `limit` rows go in one call. So nobody who records what happens waits for long.

        Raises ValueError for less than an hour, as the last events tell how work ended whose COMMIT was not answered;
        DatabaseError with the sqlstate 42501 for a role that may not delete history.
        """
        if not isinstance(older_than, timedelta):
            raise TypeError(f"older_than must be a timedelta, not {type(older_than).__name__}")
        if older_than < _SHORTEST_HISTORY:
            raise ValueError("history is kept for an hour at least: it tells how work ended whose COMMIT was lost")
        if limit < 1:
            raise ValueError(f"limit must be 1 or more, not {limit}")
        if older_than > _LONGEST_HISTORY:
            return Pruned(0, [])
        seconds = older_than.total_seconds()

        async def prune(q: AsyncQueries) -> Pruned:
            [row] = await q._core.call_async("work_history_prune", (seconds, limit))
            return Pruned(*row)

        # Counting a month takes long.
        return await run(self._core, self._core.unfenced(600.0), prune)

    async def _declare(self, name: str, eligibility: Eligibility) -> None:
        """Says in the database, once for each connection, what a process asks of machines."""
        known = (name, eligibility.fingerprint)
        if known in self._declared:
            return
        if len(self._declared) >= _MOST_DECLARED:
            self._declared.clear()
        # By the first of many that come at once; the others do not wait for it.
        self._declared.add(known)
        wanted = _written(eligibility)
        texts = (wanted.where, wanted.order_by, wanted.sql)
        params = (name, known[1], list(wanted.having), list(wanted.lacking), *texts, _core.__version__)
        if not await self._said(lambda q: q._core.call_count_async("process_declare", params)):
            self._declared.discard(known)

    async def _introduce(self, process: Process) -> None:
        """Says in the database, once a minute, that a worker of the process is there, and how it is declared."""
        now = time.monotonic()
        if now - self._introduced.get(process, -_PAUSE) < _PAUSE:
            return
        self._introduced = {known: at for known, at in self._introduced.items() if now - at < _PAUSE} | {process: now}
        backoff = process.backoff
        terms = (backoff.initial, backoff.maximum, backoff.exponent, backoff.jitter, process.max_hold)
        params = (process.name, *terms, _core.__version__)
        await self._said(lambda q: q._core.call_count_async("process_introduce", params))

    async def _said(self, fn: Callable[[AsyncQueries], Awaitable[object]]) -> bool:
        """Says what is for people only, and keeps nobody from working; False if that is worth another try."""
        try:
            await self._read(fn)
        except DatabaseError as error:
            return error.sqlstate in _NOT_HERE
        except Error:
            # What is wrong with the connection the work itself will tell.
            return False
        return True

    async def release_quarantine(
        self, machine: UUID, process: str | Process, *, owner: str | None = None, reason: str | None = None
    ) -> bool:
        """Lets the process have the machine again, at once; returns False when that was not in quarantine.

        For whoever has seen to what its holders were lost on. The losses and the quarantine's backoff are forgotten,
        so that the next backoff is a first one. History says `QuarantineReleased`, with this connection's component,
        and with `owner` and `reason` (who, and what was done about it), which go together.
        """
        cause, name = _who_and_why_if_given(owner, reason), name_of(process)
        return await self._read(lambda q: q.release_quarantine(machine, name, self._core.component, cause))

    async def hold(
        self,
        machine: UUID,
        process: str | Process | None = None,
        *,
        owner: str,
        reason: str,
        until: datetime | None = None,
    ) -> None:
        """Keeps workers away from the machine: those of one process, or all of them.

        For a person who wants to see to the machine: `owner` is who, `reason` why. It lasts until `release`, or until
        the aware datetime `until`, by the database's clock. A lease that somebody has by now is left alone; no claim
        gets a new one. A second hold for the same machine and process replaces the first. History says `Held`.

        Raises DatabaseError with constraint `work_hold_machine_fkey` for an unknown machine, ValueError for an empty
        owner or reason, for a naive datetime and for one that has passed.
        """
        _who_and_why(owner, reason)
        if until is not None:
            if not isinstance(until, datetime):
                raise TypeError(f"until must be an aware datetime or None, not {type(until).__name__}")
            if until.utcoffset() is None:
                raise ValueError("until must be an aware datetime: this one has no time zone")
        name = _held(process)
        await self._read(lambda q: q.hold(machine, name, owner, reason, until, self._core.component))

    async def release(
        self,
        machine: UUID,
        process: str | Process | None = None,
        *,
        owner: str | None = None,
        reason: str | None = None,
    ) -> bool:
        """Ends the hold of the machine for this process, or without one the hold for all; False when there was none.

        A hold for all and one for a process are two: each is ended by itself. History says `Released`, with `owner` and
        `reason`, which go together: who ends it, and why; without them with those of the hold.
        """
        cause, name = _who_and_why_if_given(owner, reason), _held(process)
        return await self._read(lambda q: q.release_hold(machine, name, self._core.component, cause))

    async def holds(self, machine: UUID | None = None) -> list[Hold]:
        """The holds in force, of this machine or of all, by machine and process."""
        return await self._look(lambda q: q.holds(machine))

    async def force_release(
        self, machine: UUID, process: str | Process, *, owner: str, reason: str
    ) -> ActiveWork | None:
        """Frees the machine of a lease whose holder does not end it; what the lease was, or None when there was none.

        The holder is fenced: its finish and fail raise LeaseLostError, and nothing of them lands. Its session lives on,
        and so does what it does outside the database: see to that first, since others may have the machine from now on
        (`hold` keeps them away). History says `Released` with owner and reason, and with the session and
        token of the lease. Waits for a transaction of the holder's that is ending the lease.

        Raises ValueError for an empty owner or reason.
        """
        cause, name = _who_and_why(owner, reason), name_of(process)
        step = None if tracing.observer is None else tracing.observer.step("force_release", self, name)

        async def free(q: AsyncQueries) -> ActiveWork | None:
            freed = await q.force_release(machine, name, cause, self._core.component)
            if step is not None and freed is not None:
                step.concerns(machine, name, freed.token)
            return freed

        return await run(self._core, self._core.unfenced(), free, step=step)

    async def clear_backoff(
        self, machine: UUID, process: str | Process, *, owner: str, reason: str
    ) -> WorkBackoff | None:
        """Ends the backoff that keeps the process off the machine; what it was, or None when there was none.

        The next failure then waits for the initial period. A quarantine is ended by `release_quarantine` only. History
        says `BackoffCleared` with owner and reason.

        Raises ValueError for an empty owner or reason.
        """
        cause, name = _who_and_why(owner, reason), name_of(process)
        return await self._read(lambda q: q.clear_backoff(machine, name, cause, self._core.component))

    async def _read(self, fn: Callable[[AsyncQueries], Awaitable[T]]) -> T:
        step = None if tracing.observer is None else tracing.observer.step("read", self)
        return await run(self._core, self._core.unfenced(), fn, step=step)

    async def _look(self, fn: Callable[[AsyncQueries], Awaitable[T]], *, seconds: float = 30.0) -> T:
        """Runs `fn` on one snapshot in which nothing can be written; each statement may take `seconds`."""
        step = None if tracing.observer is None else tracing.observer.step("read", self)
        return await run(self._core, self._core.unfenced(seconds, True), fn, step=step)


async def _examined(q: AsyncQueries, machine: UUID, name: str, question: _Question) -> _Answer:
    examined, placed = question
    [answer] = await q.fetch(examined, machine)
    if placed is None or not answer.eligible:
        return answer, None
    return answer, await q.fetch_one(placed, name, machine)


def _held(process: str | Process | None) -> str:
    if process is None:
        return ""
    name = name_of(process)
    _core.check_process(name)
    return name


def _who_and_why(owner: object, reason: object) -> str:
    for what, text in (("owner", owner), ("reason", reason)):
        if not isinstance(text, str):
            raise TypeError(f"{what} must be a str, not {type(text).__name__}")
        if not text.strip() or "\0" in text:
            raise ValueError(f"{what} must say something, without NUL characters")
    return f"{owner}: {reason}"


def _who_and_why_if_given(owner: object, reason: object) -> str | None:
    return None if owner is None and reason is None else _who_and_why(owner, reason)


def _written(eligibility: Eligibility) -> Eligibility:
    """The same without parameters."""
    if not eligibility.params:
        return eligibility
    where, order_by, sql = eligibility.written([literal(value) for value in eligibility.params])
    return Eligibility(eligibility.having, eligibility.lacking, where, (), order_by, sql)


def _eligibility(registered: RegisteredEligibility) -> Eligibility:
    having, lacking = tuple(registered.having), tuple(registered.lacking)
    return Eligibility(having, lacking, registered.condition, (), registered.order_by, registered.sql)
