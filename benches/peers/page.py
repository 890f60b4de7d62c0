"""The peers' section of docs/benchmarks.md, and its plot."""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from benches.peers.adapters import ours
from benches.peers.contract import ENTRIES, Entry
from benches.peers.expected import comparisons, starts
from benches.peers.record import Record
from benches.peers.takeover import LIMIT_SECONDS
from benches.peers.versions import all_versions
from benches.python.report import bars, drawn, duration, number, table
from benches.python.rounds import Spread

MARKS = ("<!-- written by make bench-peers -->", "<!-- end of peers -->")
RATIO_HEAD = ("What", "bmdb", "Compared with", "Result (median)", "Rounds between", "Expected", "Verdict")
COST_HEAD = (
    "Queue",
    "units a second",
    "rounds between",
    "CPU µs a unit, worker",
    "server",
    "WAL bytes a unit",
    "commits a unit",
)
EVENT_HEAD = (
    "Queue",
    "idle to start, p50",
    "p99",
    "another takes over after SIGKILL",
    "late end, unit finished by another",
    "late end, unit running elsewhere",
)
SETTING_HEAD = ("Queue", "version", "as measured")
CONTRACT_HEAD = (
    "Queue",
    "durable before the worker goes on?",
    "fenced?",
    "history",
    "a lost worker's unit is free when",
)


def adapter(entry: Entry) -> ModuleType:
    """The module of an entry."""
    return importlib.import_module(f"benches.peers.adapters.{entry.module}")


def ratios(record: Record) -> str:
    """What was expected, and what came of it."""
    p99 = {name: values[1] for name, values in record.starts.items()}
    found = [*comparisons(record.rates()), *starts(p99, ours.POLL_SECONDS)]
    return table(RATIO_HEAD, [compared.cells() for _, compared in found])


def costs(record: Record) -> str:
    """Units a second, and what a unit costs, the fastest first."""
    rows = []
    for name, runs in sorted(record.runs.items(), key=lambda item: -statistics.median(run.rate for run in item[1])):
        rate = Spread.of([run.rate for run in runs])
        others = [statistics.median(getattr(run, part) for run in runs) for part in ("client_us", "server_us", "wal")]
        commits = statistics.median(run.commits for run in runs)
        cells = [number(round(value)) if value >= 10 else number(value) for value in others]
        rows.append((name, number(rate.median), f"{number(rate.low)} – {number(rate.high)}", *cells, f"{commits:.3f}"))
    return table(COST_HEAD, rows)


def events(record: Record) -> str:
    """Starts, takeovers and late ends."""
    rows = []
    for entry in ENTRIES:
        name = entry.name
        if name not in record.starts and name not in record.takeover and name not in record.late:
            continue
        p50, p99 = (duration(value) for value in record.starts[name][:2]) if name in record.starts else ("", "")
        taken = ""
        if name in record.takeover:
            seconds = record.takeover[name]
            taken = f"> {LIMIT_SECONDS:g} s" if seconds is None else f"{seconds:.1f} s"
        rows.append((name, p50, p99, taken, *record.late.get(name, ("", ""))))
    return table(EVENT_HEAD, rows)


def contracts(record: Record) -> str:
    """How each is set, and, once for each queue, what it promises."""
    versions = all_versions()
    settings: list[tuple[str, ...]] = []
    promises: dict[str, tuple[str, ...]] = {}
    for entry in ENTRIES:
        if not any(entry.name in part for part in (record.runs, record.starts, record.takeover)):
            continue
        module = adapter(entry)
        settings.append((entry.name, versions.get(module.DISTRIBUTION or "", ""), module.SETTING[entry.variant]))
        contract = module.CONTRACT
        promised = (contract.durable, contract.fenced, contract.history, contract.freed)
        promises.setdefault(entry.module, ("bmdb" if entry.ours else entry.name, *promised))
    return f"{table(SETTING_HEAD, settings)}\n\n{table(CONTRACT_HEAD, promises.values())}"


def section(record: Record, command: str) -> str:
    """All of it."""
    left_out = [f"* {text}." for text in record.missing]
    left_out += [f"* {name}: could not be measured ({reason})." for name, reason in record.failed.items()]
    rounds = max((len(runs) for runs in record.runs.values()), default=0)
    samples = max((values[2] for values in record.starts.values()), default=0)
    return f"""## Beside other queues

Written by `{command}`. Each works off {record.units:,} units that do nothing, enqueued beforehand, in a worker process
of its own; {rounds} rounds, all in turn in each, median and range. Each is set as its own documentation advises for
throughput. What they promise differs, and a ratio without that says little: see the contracts below.

{ratios(record)}

![Units a second](peers.svg)

{costs(record)}

{events(record)}

{contracts(record)}

{chr(10).join(left_out)}

* {record.machine.get("processor", "")}, {record.machine.get("cpus", "")} CPUs shared by server and worker; PostgreSQL
  {record.machine.get("postgresql", "")}, embedded, over TCP, {record.machine.get("durability", "")}; Python
  {record.machine.get("python", "")}{record.machine.get("tools", "")}. Versions are pinned in `benches/peers`.
* **Units a second**: from the first call of the worker's function until the database shows that all units have ended.
* **CPU**: of the worker's process tree and of all server processes, in that time. **WAL and commits**: from before the
  worker's start until its connections are gone. A checkpoint precedes the enqueueing, so that the figures have next to
  no full-page images, and none falls into a run.
* **Idle to start**: the worker idle, one unit at a time, {samples} samples; from sending the enqueueing, whose own
  commit is therefore part of it, to the call of the function. bmdb's polling worker looks each
  {ours.POLL_SECONDS:g} s.
* **Takeover**: both workers as they are by default; from SIGKILL to the other's call, once.
* **Late ends**: the worker is stopped (SIGSTOP) for longer than its time-outs, set as short as the queue allows;
  another takes the unit over, and has finished it, or still runs it; the first one goes on and reports its end.
  *accepted*: that end changed the unit's state. Once each."""


def plot(record: Record, path: Path) -> None:
    """Bars of the median rates, as an SVG without scripts or references."""
    rates = sorted((statistics.median(values), name) for name, values in record.rates().items())
    title = "Units a second, median (longer is better; contracts differ)"
    chart = bars(title, len(rates), ("#1f6f8b", "#b0b7bd"), number)
    chart.x_labels = [name for _, name in rates]
    chart.add("bmdb", _of(rates, True))
    chart.add("others", _of(rates, False))
    path.write_text(drawn(chart))


def _of(rates: Sequence[tuple[float, str]], bmdb: bool) -> list[float | None]:
    return [rate if name.startswith("bmdb") == bmdb else None for rate, name in rates]
