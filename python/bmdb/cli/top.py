"""`bmdb top`: the fleet as it is now, over and over, until somebody has seen enough."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import Annotated

import typer
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.text import Text

import bmdb
from bmdb.cli import snapshot
from bmdb.cli.application import Conninfo, Json, app, opened
from bmdb.cli.durations import show_duration
from bmdb.cli.snapshot import Snapshot
from bmdb.cli.terminal import one_line, print_json

PROCESS_COLUMNS = ("PROCESS", "LEASES", "OLDEST", "BACKOFF", "NEXT", "QUAR", "CLAIM", "DONE", "FAIL", "LOST")
SESSION_COLUMNS = ("SESSION", "LEASES", "AGE", "DEADLINE", "COMPONENT")
HOLD_COLUMNS = ("HELD MACHINE", "PROCESS", "OWNER", "REASON")
_LEFT = frozenset({"PROCESS", "SESSION", "COMPONENT", "HELD MACHINE", "OWNER", "REASON"})
# The widest that a name of a process may be on a terminal: with it the table has 80 columns.
_NAME = 18
_GAP = "  "


@app.command()
def top(
    interval: Annotated[
        float, typer.Option("--interval", "-i", min=0.1, max=3600, help="Seconds from one look to the next.")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, print, and end.")] = False,
    conninfo: Conninfo = None,
    as_json: Json = False,
) -> None:
    """Watch the fleet: sessions, leases, backoffs, rates.

    Until Ctrl-C. For each process: its leases and for how long the oldest has been held; its backoffs, and how soon the
    next ends; quarantines; and how many claims, finishes, failures and losses there were in the last minute. Where
    there is no terminal, and with --json, it looks once.
    """
    with opened(conninfo) as connection:
        if once or as_json or not sys.stdout.isatty():
            taken = snapshot.take(connection)
            if as_json:
                print_json(taken.document())
            else:
                for line in _lines(taken, None):
                    print(line)
            return
        with _ended_by_signals():
            _watch(connection, interval)


def _watch(connection: bmdb.Connection, interval: float) -> None:
    """Shows one snapshot after the other on a screen of its own, which goes when this ends, however it ends."""
    console = Console(file=sys.stdout, markup=False, highlight=False, emoji=False)
    where = one_line(f"bmdb top, every {interval:g} s")
    taken = snapshot.take(connection)
    trouble = None
    with Live(console=console, screen=True, auto_refresh=False, transient=True) as live:
        while True:
            begun = time.monotonic()
            lines = [*_heading(where, taken, trouble), *_lines(taken, console.width)]
            live.update(_fitted(lines, console), refresh=True)
            time.sleep(max(0.0, begun + interval - time.monotonic()))
            try:
                taken, trouble = snapshot.take(connection), None
            except bmdb.Error as error:
                trouble = one_line(str(error))


def _heading(where: str, taken: Snapshot, trouble: str | None) -> Iterator[str]:
    yield f"{where}   {taken.at:%H:%M:%S}Z"
    if trouble is not None:
        age = show_duration((datetime.now(UTC) - taken.at).total_seconds())
        yield f"as it was {age} ago: {trouble}"
    yield ""


def _fitted(lines: Sequence[str], console: Console) -> Text:
    """As much as there is room for; the last line says how much is left out."""
    most = console.height
    if len(lines) > most:
        lines = [*lines[: most - 1], f"… {len(lines) - most + 1} more lines"]
    return Text("\n".join(_cut(line, console.width) for line in lines), no_wrap=True, overflow="crop")


def _cut(line: str, width: int) -> str:
    return line if cell_len(line) <= width else set_cell_size(line, width - 1) + "…"


def _lines(taken: Snapshot, width: int | None) -> Iterator[str]:
    """The snapshot as lines that are visible; on a terminal of that width names are cut, not ids."""
    yield from _totals(taken)
    name = None if width is None else _NAME
    yield ""
    yield from _table(PROCESS_COLUMNS, [_process_cells(row, taken.at) for row in taken.processes], name)
    if taken.sessions is not None and taken.sessions.longest:
        yield ""
        yield from _table(
            SESSION_COLUMNS, [_session_cells(session, taken.at) for session in taken.sessions.longest], None
        )
    if taken.holds:
        yield ""
        yield from _table(HOLD_COLUMNS, [_hold_cells(hold) for hold in taken.holds], None)
    for what, error in taken.errors.items():
        yield f"{what}: {one_line(error)}"


def _totals(taken: Snapshot) -> Iterator[str]:
    counts = taken.machines
    if counts is not None:
        yield (
            f"machines   {counts.machines}: {counts.leased} leased, {counts.waiting} in backoff, {counts.held} held,"
            f" {counts.quarantined} quarantined, {counts.idle} idle"
        )
    if taken.sessions is not None:
        yield f"sessions   {taken.sessions.live} live, {taken.sessions.expired} expired"
    lag = taken.collection
    if lag is not None and lag.oldest is not None:
        since = show_duration((taken.at - lag.oldest).total_seconds())
        yield f"collection {lag.sessions} expired sessions keep {lag.leases} leases, the first for {since}"
    elif lag is not None:
        yield "collection nothing is left to collect"


def _process_cells(row: snapshot.ProcessRow, now: datetime) -> list[str]:
    leases, backoffs = row.leases, row.backoffs
    return [
        one_line(row.process),
        str(leases.leases if leases else 0),
        _since(leases.oldest, now) if leases else "-",
        str(backoffs.backoffs if backoffs else 0),
        _until(backoffs.next, now) if backoffs and backoffs.next else "-",
        str(backoffs.quarantined if backoffs else 0),
        *(str(row.rates[what]) for what in snapshot.RATES.values()),
    ]


def _session_cells(session: bmdb.overview.SessionAge, now: datetime) -> list[str]:
    return [
        str(session.session_id),
        str(session.leases),
        _since(session.created_at, now),
        _until(session.deadline, now) if session.live else "expired",
        one_line(session.component),
    ]


def _hold_cells(hold: bmdb.model.Hold) -> list[str]:
    process = "(all)" if hold.process is None else one_line(hold.process)
    return [str(hold.machine_id), process, one_line(hold.owner), one_line(hold.reason)]


def _since(moment: datetime, now: datetime) -> str:
    return _brief((now - moment).total_seconds())


def _until(moment: datetime, now: datetime) -> str:
    return _brief((moment - now).total_seconds())


def _brief(seconds: float) -> str:
    """A duration in its largest unit."""
    return show_duration(seconds).partition(" ")[0]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], name: int | None) -> Iterator[str]:
    """Columns beneath each other, numbers and times to the right; the first is cut to `name`, unless that is None."""
    cells = [list(columns), *map(list, rows)]
    if name is not None:
        for row in cells:
            row[0] = _cut(row[0], name)
    widths = [max(cell_len(cell) for cell in column) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = [
            set_cell_size(cell, width) if column in _LEFT else " " * (width - cell_len(cell)) + cell
            for column, cell, width in zip(columns, row, widths, strict=True)
        ]
        yield _GAP.join(padded).rstrip()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM ends it in good order, too, with the status that says so; Ctrl-C is how it is meant to end."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGTERM, before)
