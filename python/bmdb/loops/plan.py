"""What a runner is given, checked, and where each loop is to run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from bmdb.loops.loop import Loop


def listed(loops: Loop[Any] | Iterable[Loop[Any]]) -> tuple[Loop[Any], ...]:
    """The loops one by one; TypeError for anything else, ValueError for none."""
    given = (loops,) if isinstance(loops, Loop) else tuple(loops)
    for loop in given:
        if not isinstance(loop, Loop):
            raise TypeError(f"a loop is made by the decorator bmdb.loop; this is a {type(loop).__name__}")
    if not given:
        raise ValueError("there is no loop to run")
    return given


def divided(
    loops: Sequence[Loop[Any]], processes: int | None
) -> tuple[Sequence[Loop[Any]], list[tuple[Sequence[Loop[Any]], int]]]:
    """The loops that run in this process, and those that run elsewhere, with in how many processes. 0: all run here."""
    if processes == 0:
        return loops, []
    if processes is not None:
        if isinstance(processes, bool) or not 0 < processes <= 1000:
            raise ValueError(f"processes must be a number from 1 to 1000, not {processes!r}")
        return (), [(loops, processes)]
    here = [loop for loop in loops if loop.executor != "process"]
    return here, [((loop,), loop.processes) for loop in loops if loop.executor == "process"]


def checked_grace(grace: object) -> float:
    """The grace in seconds; TypeError or ValueError for what is none."""
    if not isinstance(grace, int | float) or isinstance(grace, bool):
        raise TypeError(f"grace must be seconds, not {type(grace).__name__}")
    if not math.isfinite(grace) or grace < 0:
        raise ValueError(f"grace must be 0 seconds or more, not {grace}")
    return float(grace)
