"""Control loops: a function that works on one machine becomes a fleet of workers."""

from bmdb.errors import Cancel, Retry
from bmdb.loops.loop import Loop, loop
from bmdb.loops.runner import Runner, run

__all__ = ["Cancel", "Loop", "Retry", "Runner", "loop", "run"]
