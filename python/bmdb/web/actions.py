"""What operators do to a machine from its page: hold and release, free leases, end backoffs and quarantines.

There only with `allow_actions`, and behind the guard: whoever gets here is known, and sent a form of ours. All is done
on a connection of its own, through the same methods as in Python and in a terminal, and history says by whom.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

import bmdb
from bmdb import logs
from bmdb._async.queries import AsyncQueries
from bmdb.model import ActiveWork, Hold, WorkBackoff, WorkLoss
from bmdb.web.access import Misuse
from bmdb.web.site import link, site_of

__all__ = ["COMPONENT", "Acting", "Choices", "choices", "routes"]

COMPONENT = "bmdb web"
SECONDS = 10.0
LONGEST_REASON = 2000
LONGEST_PROCESS = 200
# For how long a hold may be asked for.
PERIODS = {
    "": None,
    "1h": timedelta(hours=1),
    "4h": timedelta(hours=4),
    "1d": timedelta(days=1),
    "7d": timedelta(days=7),
}

_logger = logs.logger("bmdb.web")


class Acting:
    """The connection that actions are done on, opened when the first of them is."""

    def __init__(self, conninfo: str | None) -> None:
        self._conninfo = conninfo
        self._connection: bmdb.AsyncConnection | None = None
        self._connecting = asyncio.Lock()

    async def connection(self) -> bmdb.AsyncConnection:
        """The connection. Raises ConnectionFailedError, ConfigError or MigrationError."""
        async with self._connecting:
            if self._connection is None:
                self._connection = await bmdb.AsyncConnection.connect(
                    self._conninfo, component=COMPONENT, pool_size=2, pooler=None
                )
        return self._connection

    async def close(self) -> None:
        """Closes it; the next action opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


@dataclass(frozen=True, slots=True)
class Choices:
    """What there is to be ended at a machine."""

    leases: list[ActiveWork]
    holds: list[Hold]
    backoffs: list[WorkBackoff]
    quarantines: list[WorkLoss]


async def choices(connection: bmdb.AsyncConnection, machine: UUID) -> Choices:
    """What there is to be ended at the machine, from one snapshot; for the page's part with the forms."""

    async def ask(q: AsyncQueries) -> Choices:
        losses = [WorkLoss(*row) for row in await q._core.call_async("web_machine_quarantines", (machine,))]
        quarantines = [loss for loss in losses if loss.quarantined_at is not None]
        # The backoff of a quarantine ends with it, and only so.
        kept = {quarantine.process for quarantine in quarantines}
        backoffs = [backoff for backoff in await q.backoffs_of([machine]) if backoff.process not in kept]
        return Choices(await q.work_on([machine]), await q.holds(machine), backoffs, quarantines)

    return await connection._read(ask)


class _Refused(Exception):
    """What the form asks for cannot be done; the text is for who sent it."""


@dataclass(frozen=True, slots=True)
class _Deed:
    """What somebody wants done: to which machine, who, and the fields of the form."""

    machine: UUID
    person: str
    form: Mapping[str, str]

    @property
    def process(self) -> str:
        return self._field("process", LONGEST_PROCESS, "Say which process.")

    @property
    def reason(self) -> str:
        return self._field("reason", LONGEST_REASON, "Say why: others will wonder.")

    @property
    def cause(self) -> str:
        """What history says, as the methods of a connection write it."""
        return f"{self.person}: {self.reason}"

    def _field(self, name: str, longest: int, missing: str) -> str:
        value = self.form.get(name, "").strip()
        if not value:
            raise _Refused(missing)
        if len(value) > longest:
            raise _Refused(f"At most {longest} characters, please, for: {name}.")
        return value


async def _hold(connection: bmdb.AsyncConnection, deed: _Deed) -> str:
    period = deed.form.get("period", "")
    if period not in PERIODS:
        raise _Refused("Choose one of the periods offered.")
    length = PERIODS[period]
    until = None if length is None else datetime.now(UTC) + length
    process = deed.process if deed.form.get("process", "").strip() else None
    await connection.hold(deed.machine, process, owner=deed.person, reason=deed.reason, until=until)
    return "held"


async def _release(connection: bmdb.AsyncConnection, deed: _Deed) -> str:
    process, cause = deed.process if deed.form.get("process") else None, deed.cause
    seen = deed.form.get("since", "")

    async def release(q: AsyncQueries) -> str:
        # A lock belongs to whoever placed it: one that has taken its place since was not what the person saw.
        found = [hold for hold in await q.holds(deed.machine) if hold.process == process]
        if not found:
            return "not-held"
        if found[0].held_at.isoformat() != seen:
            return "another-hold"
        return "released" if await q.release_hold(deed.machine, process or "", COMPONENT, cause) else "not-held"

    return await connection._read(release)


async def _force_release(connection: bmdb.AsyncConnection, deed: _Deed) -> str:
    process, cause = deed.process, deed.cause
    if deed.form.get("sure") != "yes":
        raise _Refused("Confirm that its holder does no more harm: others may have the machine from now on.")

    async def release(q: AsyncQueries) -> str:
        # The next holder's lease has another token, and nobody meant that one.
        found = [lease for lease in await q.work_on([deed.machine]) if lease.process == process]
        if not found:
            return "not-leased"
        if str(found[0].token) != deed.form.get("token"):
            return "another-lease"
        return "freed" if await q.force_release(deed.machine, process, cause, COMPONENT) else "not-leased"

    return await connection._read(release)


async def _clear_backoff(connection: bmdb.AsyncConnection, deed: _Deed) -> str:
    cleared = await connection.clear_backoff(deed.machine, deed.process, owner=deed.person, reason=deed.reason)
    return "no-backoff" if cleared is None else "cleared"


async def _release_quarantine(connection: bmdb.AsyncConnection, deed: _Deed) -> str:
    released = await connection.release_quarantine(deed.machine, deed.process, owner=deed.person, reason=deed.reason)
    return "trusted" if released else "no-quarantine"


def _action(name: str, act: Callable[[bmdb.AsyncConnection, _Deed], Awaitable[str]]) -> Route:
    async def handle(request: Request) -> Response:
        if not request.state.may_act:
            raise Misuse(403, "Log in first.")
        machine: UUID = request.path_params["machine"]
        deed = _Deed(machine, request.state.person, request.state.form)
        try:
            async with asyncio.timeout(SECONDS):
                said = await act(await request.app.state.acting.connection(), deed)
        except _Refused as refused:
            return _told(request, 422, str(refused))
        except bmdb.DatabaseError as error:
            if error.constraint == "work_hold_machine_fkey":
                return _told(request, 404, "There is no such machine.")
            return _told(request, 409, f"The database refused it: {error}")
        except (bmdb.ConnectionFailedError, TimeoutError):
            return _told(
                request, 503, "The database does not answer: nobody knows yet whether it was done. See the page."
            )
        except bmdb.Error as error:
            return _told(request, 500, f"That failed: {error}")
        except ValueError as error:
            # A name or a text that cannot be stored.
            return _told(request, 422, str(error))
        _logger.info("%r asked for %s of machine %s: %s", deed.person, name, machine, said)
        notice = request.state.guard.visits.notice(request.state.binding, str(machine), said)
        return RedirectResponse(link(request, "machine", {"said": notice}, machine=machine), 303)

    return Route(f"/machines/{{machine:uuid}}/{name}", handle, methods=["POST"], name=name)


def _told(request: Request, status: int, text: str) -> Response:
    """A page that says why nothing was done, and leads back."""
    machine: UUID = request.path_params["machine"]
    return site_of(request).page(request, "refused.html", status=status, text=text, machine=machine)


routes = [
    _action("hold", _hold),
    _action("release", _release),
    _action("force-release", _force_release),
    _action("clear-backoff", _clear_backoff),
    _action("release-quarantine", _release_quarantine),
]
