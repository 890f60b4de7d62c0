"""The fleet in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the fleet looked like in one transaction. Counts of machines, or per process where it says so."""

    machines: int
    machines_provided: int
    machines_heartbeating: int
    machines_pending_installation: int
    machines_installed: int
    machines_pending_agent_start: int
    machines_pending_agent_recovery: int
    active_work: dict[str, int]
    active_backoffs: dict[str, int]
