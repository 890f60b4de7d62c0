"""What a worker was told, one line of JSON for each thing, written before the worker goes on.

Each life of a worker has a file of its own, so a line that its end cut short is the last one and can be left out.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

Kind = Literal["claim", "transact", "finish", "fail", "cancel"]
Outcome = Literal["ok", "failed", "unknown"]


@dataclass
class Act:
    """Something attempted: `nonce` marks what it would write, `outcome` is what the library said (unknown until then).

    `machine`, `token` and `session` say under which lease; a claim learns the first two. `committed` is what could be
    found out later about an outcome that was unknown at first; `told` names the error, or how it went. It was begun at
    `began`, in seconds since the epoch, and took `seconds`.
    """

    nonce: str
    kind: Kind
    session: UUID
    machine: UUID | None = None
    token: int | None = None
    outcome: Outcome = "unknown"
    committed: bool | None = None
    told: str = "nothing: the worker's life ended"
    began: float = 0.0
    seconds: float | None = None


@dataclass(frozen=True)
class Belief:
    """At `at` (seconds since the epoch) or later, the worker was told that its session lives and the lease is its."""

    at: float
    session: UUID
    machine: UUID
    token: int


class Ledger:
    """The file that one life of a worker writes. Threads may share it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._lock = threading.Lock()

    def note(self, what: str, **facts: Any) -> None:
        """Hand one line to the system, which keeps it whatever becomes of this process."""
        line = json.dumps({"what": what, "at": time.time(), **facts}, default=str) + "\n"
        with self._lock:
            os.write(self._file, line.encode())


@dataclass(frozen=True)
class Told:
    """All that the ledgers hold. `broken`: what no worker should ever have met."""

    acts: list[Act]
    beliefs: list[Belief]
    broken: list[str]


def read(directory: Path) -> Told:
    """The ledgers of a directory."""
    acts: dict[str, Act] = {}
    beliefs: list[Belief] = []
    broken: list[str] = []
    for path in sorted(directory.glob("*.jsonl")):
        for line in _lines(path):
            what = line.pop("what")
            if what == "begin":
                act = Act(line["nonce"], line["kind"], UUID(line["session"]), began=line["at"])
                if line.get("machine"):
                    act.machine, act.token = UUID(line["machine"]), line["token"]
                acts[act.nonce] = act
            elif what == "end":
                act = acts[line["nonce"]]
                act.outcome, act.told, act.seconds = line["outcome"], line["told"], line["at"] - act.began
                if line.get("machine"):
                    act.machine, act.token = UUID(line["machine"]), line["token"]
            elif what == "resolved":
                acts[line["nonce"]].committed = line["committed"]
            elif what == "belief":
                beliefs.append(Belief(line["at"], UUID(line["session"]), UUID(line["machine"]), line["token"]))
            else:
                broken.append(f"{path.stem}: {line['error']}")
    return Told(list(acts.values()), beliefs, broken)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)
