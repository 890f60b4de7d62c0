"""From `fleet.loops:all` to loops and statistics, and the log that they write while they run."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

from bmdb.cli.terminal import WarningHandler, one_line
from bmdb.loops import Loop
from bmdb.statistics import Statistic

__all__ = ["Unusable", "loops_of", "statistics_of", "write_log"]


class Unusable(Exception):
    """A target that names no loops; the message says why."""


def loops_of(targets: Sequence[str]) -> list[Loop[Any]]:
    """The loops that the targets name, each once, in order. Raises Unusable, in one line.

    A target is MODULE, for all loops of a module, or MODULE:ATTRIBUTE, where that is a loop or several in a collection;
    `all` means all loops of the module unless it defines something of that name. Modules are also looked for in the
    current directory.
    """
    _look_here()
    found: dict[int, Loop[Any]] = {}
    for target in targets:
        for loop in _named(target):
            found.setdefault(id(loop), loop)
    return list(found.values())


def statistics_of(targets: Sequence[str], *, needed: bool = True) -> list[Statistic[Any]]:
    """All statistics of the modules that the targets name, each once, in order. Raises Unusable, in one line.

    Unless `needed`, a module may have none.
    """
    _look_here()
    found: dict[int, Statistic[Any]] = {}
    for target in targets:
        name = target.partition(":")[0]
        values = vars(_imported(name, target)).values()
        here = [value for value in values if isinstance(value, Statistic)]
        if needed and not here:
            raise Unusable(f"{name} defines no statistics: they are made by the decorator bmdb.statistic")
        found |= {id(statistic): statistic for statistic in here if id(statistic) not in found}
    return list(found.values())


def _look_here() -> None:
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def _named(target: str) -> list[Loop[Any]]:
    name, colon, path = target.partition(":")
    if colon and not path:
        raise Unusable(f"{target!r} names no attribute: say {name}, or {name}:all, for all loops of the module")
    module = _imported(name, target)
    if not path or (path == "all" and not hasattr(module, "all")):
        loops = [value for value in vars(module).values() if isinstance(value, Loop)]
        if not loops:
            raise Unusable(f"{name} defines no loops: they are made by the decorator bmdb.loop")
        return loops
    value: Any = module
    for part in path.split("."):
        if not hasattr(value, part):
            raise Unusable(f"{name} has no {path}{_instead(module)}")
        value = getattr(value, part)
    loops = [value] if isinstance(value, Loop) else list(value) if isinstance(value, Iterable) else []
    if not loops or not all(isinstance(loop, Loop) for loop in loops):
        raise Unusable(f"{target} is neither a loop nor a list of loops{_instead(module)}")
    return loops


def _instead(module: ModuleType) -> str:
    names = sorted(name for name, value in vars(module).items() if isinstance(value, Loop))
    return f"; loops there: {', '.join(names)}" if names else "; there are no loops in it"


def _imported(name: str, target: str) -> ModuleType:
    if not name or not all(part.isidentifier() for part in name.split(".")):
        raise Unusable(f"{target!r} is no MODULE or MODULE:ATTRIBUTE, such as fleet.loops:all")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise Unusable(f"there is no module {error.name}, neither here nor installed") from None
        raise Unusable(_told(name, error)) from None
    except (Exception, SystemExit) as error:
        raise Unusable(_told(name, error)) from None


def _told(name: str, error: BaseException) -> str:
    """What went wrong, and the last line outside the import machinery that it passed."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    place = next((f" ({frame.filename}, line {frame.lineno})" for frame in reversed(frames[2:])), "")
    return one_line(f"{name} cannot be imported: {type(error).__name__}: {error}{place}")


class _Formatter(logging.Formatter):
    """One line a record, tracebacks apart; what a terminal would act on is shown as what it is."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = one_line(record.message)
        return super().formatMessage(record)


def write_log(level: str) -> None:
    """Writes the records of all loggers from `level` on to standard error, and those of bmdb not twice."""
    logger = logging.getLogger("bmdb")
    for handler in [handler for handler in logger.handlers if isinstance(handler, WarningHandler)]:
        logger.removeHandler(handler)
    writing = logging.StreamHandler(sys.stderr)
    writing.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[writing])
