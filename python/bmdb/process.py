"""A kind of work: what it is called, what it keeps away, and what follows when it goes wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from bmdb import _core
from bmdb._core import Backoff, Eligibility
from bmdb.durations import positive_seconds

__all__ = ["Process", "eligibility_of", "name_of"]

_DEFAULT_BACKOFF = Backoff(60, 3600, 2)


@dataclass(frozen=True, init=False)
class Process:
    """The definition of a kind of work, to be given to `work()` in place of its name. Frozen; equal if all of it is.

    * `name`: 1 to 128 bytes, no NUL.
    * `backoff`: what failed work waits that names no other backoff; by default a minute, doubling up to an hour.
    * `excludes`: processes, or their names, none of which may hold a machine while this one does, nor the other way
      round. The database enforces it against every worker, whatever that one declares or its version knows. Kept as
      names, in order and each once; the process's own name is left out, since it excludes itself anyway.
    * `max_hold`: how long one lease may be held, in seconds (or a timedelta); kept as float seconds. None: no limit.
    * `crash_backoff`: how long a machine is left alone when the holder of its lease was lost. None: not at all.
    * `quarantine_after`: after so many lost holders in a row a machine is left alone until somebody releases it
      (`Connection.release_quarantine`). None: never.

    * `eligible`: which machines need it, as `bmdb.eligible(...)`; then `work()` needs no callback. None: `work()` is
      told.
    * `watch`: whether triggers on the tags that `eligible` names tell at once of machines that become eligible
      (PostgreSQL only; see docs/processes.md). Without them a sweep finds these.

    Exclusions, crash backoff and quarantine are kept in the database, and hold for every worker: see
    `Connection.register`.

    Raises ValueError, naming the setting, for a value that makes no sense, and TypeError for a type that does not fit.
    """

    name: str
    backoff: Backoff
    excludes: tuple[str, ...]
    max_hold: float | None
    crash_backoff: Backoff | None
    quarantine_after: int | None
    eligible: Eligibility | None
    watch: bool

    def __init__(
        self,
        name: str,
        backoff: Backoff = _DEFAULT_BACKOFF,
        excludes: Iterable[str | Process] = (),
        max_hold: float | timedelta | None = None,
        crash_backoff: Backoff | None = None,
        quarantine_after: int | None = None,
        eligible: Eligibility | None = None,
        watch: bool = True,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, not {type(name).__name__}")
        if not isinstance(backoff, Backoff):
            raise TypeError(f"backoff must be a Backoff, not {type(backoff).__name__}")
        if crash_backoff is not None and not isinstance(crash_backoff, Backoff):
            raise TypeError(f"crash_backoff must be a Backoff or None, not {type(crash_backoff).__name__}")
        if eligible is not None and not isinstance(eligible, Eligibility):
            raise TypeError(f"eligible must be made by bmdb.eligible() or None, not {type(eligible).__name__}")
        if not isinstance(watch, bool):
            raise TypeError(f"watch must be a bool, not {type(watch).__name__}")
        set_field = object.__setattr__
        # An enumeration's member is stored as the text that it is.
        set_field(self, "name", str.__str__(name))
        _core.check_process(self.name)
        set_field(self, "backoff", backoff)
        set_field(self, "excludes", _excluded(self.name, excludes))
        set_field(self, "max_hold", positive_seconds("max_hold", max_hold))
        set_field(self, "crash_backoff", crash_backoff)
        set_field(self, "quarantine_after", _losses(quarantine_after))
        set_field(self, "eligible", eligible)
        set_field(self, "watch", watch)

    @property
    def watches(self) -> list[tuple[str, str]]:
        """The changes of tags that may make a machine eligible: pairs of a table and "INSERT", "UPDATE" or "DELETE".

        A tag that it must have comes, or changes where the condition looks at it; one that it must lack goes. None with
        `watch=False`, and for what no tag tells: SQL of your own, and eligibility without a tag that must be there, as
        a new machine has none.
        """
        wanted = self.eligible
        if wanted is None or not self.watch or not wanted.having:
            return []
        comes = ("INSERT", "UPDATE") if wanted.where is not None else ("INSERT",)
        return [(f"machine_{tag}", event) for tag in wanted.having for event in comes] + [
            (f"machine_{tag}", "DELETE") for tag in wanted.lacking
        ]

    @property
    def watcher(self) -> str:
        """What tells this eligibility's notes from others' of the same process; empty where nothing is watched."""
        return self.eligible.fingerprint if self.eligible is not None and self.watches else ""

    def __str__(self) -> str:
        return self.name


def name_of(process: str | Process) -> str:
    """The name of a process given by name or by definition; TypeError for anything else."""
    if isinstance(process, Process):
        return process.name
    if isinstance(process, str):
        return str.__str__(process)
    raise TypeError(f"process must be a str or a Process, not {type(process).__name__}")


def eligibility_of(process: object, given: object) -> Eligibility | None:
    """The eligibility given in place of a callback, else the process's own; None when a callback is given."""
    if isinstance(given, Eligibility):
        return given
    if given is not None:
        return None
    if isinstance(process, Process) and process.eligible is not None:
        return process.eligible
    raise TypeError("which machines? Give the Process eligible=, or pass bmdb.eligible(…) or a callback")


def _excluded(name: str, excludes: object) -> tuple[str, ...]:
    if isinstance(excludes, str | Process | bytes) or not isinstance(excludes, Iterable):
        raise TypeError(f"excludes must be a tuple of processes, not {type(excludes).__name__}")
    names: dict[str, None] = {}
    for other in excludes:
        try:
            excluded = name_of(other)
            _core.check_process(excluded)
        except (TypeError, ValueError) as error:
            raise type(error)(f"excludes: {error}") from None
        if excluded != name:
            names[excluded] = None
    return tuple(names)


def _losses(quarantine_after: object) -> int | None:
    if quarantine_after is None:
        return None
    if not isinstance(quarantine_after, int) or isinstance(quarantine_after, bool):
        raise TypeError(f"quarantine_after must be an int or None, not {type(quarantine_after).__name__}")
    if not 1 <= quarantine_after < 2**31:
        raise ValueError(f"quarantine_after must be a number of losses, 1 or more, not {quarantine_after}")
    return int(quarantine_after)
