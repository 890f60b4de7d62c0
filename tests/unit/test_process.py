"""What a process's definition accepts, and what it makes of it."""

from __future__ import annotations

import dataclasses
import math
import pickle
from datetime import timedelta
from enum import Enum
from typing import Any

import pytest

import bmdb
from bmdb.model import ProcessName
from bmdb.process import name_of


class Mixed(str, Enum):  # noqa: UP042 - whose str() is not its value, unlike a StrEnum's
    ONE = "One"


def test_only_the_name_is_needed() -> None:
    process = bmdb.Process("AgentStart")
    assert str(process) == process.name == "AgentStart"
    assert process.backoff == bmdb.Backoff(60, 3600, 2)
    assert process.excludes == ()
    assert process.max_hold is process.crash_backoff is process.quarantine_after is None


def test_everything_is_kept() -> None:
    backoff, crash = bmdb.Backoff(1), bmdb.Backoff(5, 60, 2)
    process = bmdb.Process("A", backoff, ["B", "C", "B"], timedelta(minutes=10), crash, 3)
    assert process.backoff is backoff
    assert process.excludes == ("B", "C")
    assert process.max_hold == 600.0 and isinstance(process.max_hold, float)
    assert process.crash_backoff is crash
    assert process.quarantine_after == 3


def test_processes_stand_for_their_names_and_none_excludes_itself() -> None:
    recovery = bmdb.Process(ProcessName.SHEPHERD_RECOVERY)
    group = (recovery, ProcessName.SHEPHERD_AGENT_START, Mixed.ONE, "Access")
    process = bmdb.Process("ShepherdAgentStart", excludes=group)
    assert process.excludes == ("ShepherdRecovery", "One", "Access")
    assert all(type(name) is str for name in (recovery.name, *process.excludes))


def test_it_is_a_frozen_value() -> None:
    process = bmdb.Process("A", excludes=("B",), max_hold=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        process.name = "B"  # type: ignore[misc]
    assert process == bmdb.Process("A", excludes=["B"], max_hold=1.0)
    assert hash(process) == hash(bmdb.Process("A", excludes=["B"], max_hold=1.0))
    assert process != bmdb.Process("A")
    assert pickle.loads(pickle.dumps(process)) == process
    assert dataclasses.replace(process, name="C").excludes == ("B",)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"name": ""}, ValueError, "the process name is empty"),
        ({"name": "x" * 129}, ValueError, "129 bytes"),
        ({"name": "é" * 65}, ValueError, "130 bytes"),
        ({"name": "a\0b"}, ValueError, "NUL"),
        ({"name": 7}, TypeError, "name must be a str, not int"),
        ({"backoff": 60}, TypeError, "backoff must be a Backoff, not int"),
        ({"crash_backoff": 60}, TypeError, "crash_backoff must be a Backoff or None, not int"),
        ({"excludes": "B"}, TypeError, "excludes must be a tuple of processes, not str"),
        ({"excludes": bmdb.Process("B")}, TypeError, "excludes must be a tuple of processes, not Process"),
        ({"excludes": 5}, TypeError, "excludes must be a tuple of processes, not int"),
        ({"excludes": [""]}, ValueError, "excludes: the process name is empty"),
        ({"excludes": [None]}, TypeError, "excludes: process must be a str or a Process, not NoneType"),
        ({"max_hold": 0}, ValueError, "max_hold must be more than 0 seconds, not 0"),
        ({"max_hold": timedelta(seconds=-1)}, ValueError, "max_hold must be more than 0 seconds, not -1"),
        ({"max_hold": math.nan}, ValueError, "max_hold"),
        ({"max_hold": math.inf}, ValueError, "max_hold"),
        ({"max_hold": True}, TypeError, "max_hold must be seconds, a timedelta or None, not bool"),
        ({"max_hold": "5"}, TypeError, "max_hold must be seconds, a timedelta or None, not str"),
        ({"quarantine_after": 0}, ValueError, "quarantine_after must be a number of losses, 1 or more, not 0"),
        ({"quarantine_after": 2**31}, ValueError, "quarantine_after"),
        ({"quarantine_after": 2.0}, TypeError, "quarantine_after must be an int or None, not float"),
        ({"quarantine_after": True}, TypeError, "quarantine_after must be an int or None, not bool"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        bmdb.Process(**{"name": "A", **settings})


def test_a_name_is_found_either_way() -> None:
    assert name_of(bmdb.Process("A")) == name_of("A") == "A"
    assert name_of(Mixed.ONE) == "One"
    with pytest.raises(TypeError, match="process must be a str or a Process, not int"):
        name_of(5)  # type: ignore[arg-type]
