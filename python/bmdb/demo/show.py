"""The course of the demo: server, rack, endpoints, workers, what goes wrong, and the report."""

from __future__ import annotations

import contextlib
import json as _json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import UUID

from bmdb import Connection, Process, Queries, connect, eligible, embedded
from bmdb.conninfo import EMBEDDED
from bmdb.demo.endpoints import Endpoints
from bmdb.demo.facts import Facts, gather
from bmdb.demo.fleet import Fleet, Report
from bmdb.demo.invariants import judge
from bmdb.demo.rack import RackMachine, read_rack
from bmdb.demo.report import rendered, summary
from bmdb.demo.scenes import Scenes
from bmdb.demo.view import Progress, View, standard_view
from bmdb.demo.worker import BACKOFF, PROCESS
from bmdb.errors import ConfigError

FEWEST_WORKERS = 2
FEWEST_MACHINES = 10
NEEDED = eligible(having=("provided",), lacking=("agent_started",))
INTERVAL = 2.0  # of the workers' sessions, in seconds
_LOOK_EVERY = 0.25
_END_SECONDS = 8.0


def show(*, machines: int, workers: int, json: bool, rack: Path | None, keep: Path | None = None) -> int:
    """Runs the demo; see `bmdb.demo.run`."""
    if workers < FEWEST_WORKERS:
        raise ConfigError(f"the demo needs {FEWEST_WORKERS} workers or more: one is killed, and others go on")
    if machines < FEWEST_MACHINES:
        raise ConfigError(f"the demo needs {FEWEST_MACHINES} machines or more: something must be left to do halfway")
    if keep is not None and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise ConfigError(f"{keep} is there already: name a place for the demo's database where nothing is")
    listed = read_rack(rack, machines)
    begun = time.monotonic()
    try:
        facts = _perform(listed, workers, standard_view(json=json), keep)
    except KeyboardInterrupt:
        print("interrupted: the workers, the endpoints and the server have been ended", file=sys.stderr)
        return 130
    invariants = judge(facts)
    report = summary(facts, invariants, seconds=time.monotonic() - begun)
    if keep is not None:
        report["kept"] = {"conninfo": f"{EMBEDDED}{keep.absolute()}", "held": str(_unreachable(facts))}
    print(_json.dumps(report, indent=2) if json else rendered(report), flush=True)
    return 0 if report["ok"] else 1


def _perform(listed: Sequence[RackMachine], workers: int, view: View, keep: Path | None) -> Facts:
    with contextlib.ExitStack() as stack:
        stack.enter_context(view)
        providers = list(dict.fromkeys(machine.provider for machine in listed))
        view.say(f"{len(listed)} machines of {' and '.join(providers)} need an agent; {workers} workers will start it")
        server = stack.enter_context(embedded.start(None if keep is None else str(keep)))
        connection = stack.enter_context(connect(server.conninfo, component="demo", migrate=True))
        pid = (server.path / "data" / "postmaster.pid").read_text().split()[0]
        where = "for this demo alone" if keep is None else f"at {keep}"
        view.say(f"PostgreSQL runs, {where} (pid {pid})")
        endpoints = stack.enter_context(Endpoints(listed))
        rack = _insert(connection, listed, endpoints)
        fleet = stack.enter_context(
            Fleet(server.conninfo, workers, interval=INTERVAL, limit=max(4, workers), providers=providers)
        )
        pids = " ".join(str(worker.pid) for worker in fleet.workers)
        view.say(f"{workers} workers run, each in a session of {INTERVAL:g} s (pids {pids})")
        scenes = Scenes(fleet, connection, rack, view.say, interval=INTERVAL)
        _watch(fleet, connection, rack, endpoints, scenes, view)
        fleet.end(_END_SECONDS)
        facts = gather(connection, rack, endpoints, fleet.workers, killed=scenes.killed, stopped=scenes.stopped)
        if keep is not None:
            connection.hold(_unreachable(facts), owner="the demo", reason="it never answered: see whether it has power")
        return facts


def _unreachable(facts: Facts) -> UUID:
    """One of the machines that never answered, or any where all did: something to look into."""
    return min(facts.machines, key=lambda one: (one.can_be_done, one.provider_id)).machine


def _insert(connection: Connection, listed: Sequence[RackMachine], endpoints: Endpoints) -> dict[UUID, RackMachine]:
    """Puts the machines into the database, as the component that knows the providers would."""

    def insert(q: Queries) -> dict[UUID, RackMachine]:
        found = {}
        for row in listed:
            machine = q.new_machine().machine_id
            q.machine_add_provided(
                machine,
                row.provider,
                row.provider_id,
                reservation_id=row.reservation_id,
                ip_address=endpoints.of(row).address,
                location=row.location,
                status=row.status,
            )
            found[machine] = row
        return found

    # The workers choose machines in a callback; this is for whoever asks why one is not worked on.
    connection.register(Process(PROCESS, backoff=BACKOFF, eligible=NEEDED))
    with connection.start_session(processor="demo") as session:
        return session.transact(insert)


def _watch(
    fleet: Fleet,
    connection: Connection,
    rack: Mapping[UUID, RackMachine],
    endpoints: Endpoints,
    scenes: Scenes,
    view: View,
) -> None:
    """Returns when all that can be done is done, when no worker is left, or when that has taken far too long."""
    can_be_done = sum(row.can_be_done for row in rack.values())
    deadline = time.monotonic() + _limit(rack, len(fleet.workers))
    states = {worker.name: "begins" for worker in fleet.workers}
    running = {worker.name for worker in fleet.workers}
    looked, done = 0.0, 0
    while running and time.monotonic() < deadline:
        for report in fleet.heard(0.05):
            # Before the first worker is there, nobody would see that an endpoint refuses.
            endpoints.begin()
            scenes.on(report, halfway=2 * done >= can_be_done)
            states[report.worker.name] = _state(report, rack)
            if report.event == "ended":
                running.discard(report.worker.name)
        scenes.tick()
        if time.monotonic() < looked + _LOOK_EVERY:
            continue
        looked = time.monotonic()
        progress = _progress(connection, can_be_done, fleet, states)
        done = progress.done
        view.show(progress)
        if done >= can_be_done and not scenes.waiting:
            return


def _limit(rack: Mapping[UUID, RackMachine], workers: int) -> float:
    """Seconds after which the demo is given up: a good while longer than the work takes."""
    return 35.0 + 1.5 * sum(row.delay + 0.1 for row in rack.values()) / workers


def _progress(connection: Connection, can_be_done: int, fleet: Fleet, states: Mapping[str, str]) -> Progress:
    seen = connection.statistics()
    leased, backoff = seen.active_work.get(PROCESS, 0), seen.active_backoffs.get(PROCESS, 0)
    waiting = seen.machines_pending_agent_start
    shown = []
    for worker in fleet.workers:
        state = "killed (SIGKILL)" if worker.killed else "stopped (SIGSTOP)" if worker.stopped else states[worker.name]
        shown.append((str(worker), state))
    return Progress(
        done=seen.machines_provided - waiting - leased - backoff,
        leased=leased,
        backoff=backoff,
        waiting=waiting,
        can_be_done=can_be_done,
        workers=shown,
    )


def _state(report: Report, rack: Mapping[UUID, RackMachine]) -> str:
    row = None if report.machine is None else rack.get(report.machine)
    if row is None:
        return {"session": "has a new session", "idle": "idle: nothing to lease now"}.get(report.event, report.event)
    verbs = {"leased": "holds", "asked": "starts the agent of", "refused": "was refused"}
    return f"{verbs.get(report.event, report.event)} {row.provider_id} ({row.location or row.provider})"
