"""What the doctor says: one finding for each thing looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Finding", "Level", "note", "ok", "problem", "warning"]


class Level(StrEnum):
    """How bad it is. A problem breaks workers or a guarantee, a warning will one day; a note is good to know."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One sentence on one thing, what to do about it unless that is nothing, and what it was concluded from.

    The text may repeat what comes from outside (names, the server's messages): escape it wherever it is shown.
    """

    check: str
    level: Level
    text: str
    advice: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def ok(check: str, text: str, **facts: Any) -> Finding:
    """All is as it should be."""
    return Finding(check, Level.OK, text, None, facts)


def note(check: str, text: str, advice: str | None = None, **facts: Any) -> Finding:
    """Good to know, and right for some."""
    return Finding(check, Level.NOTE, text, advice, facts)


def warning(check: str, text: str, advice: str, **facts: Any) -> Finding:
    """It works, and one day it will not."""
    return Finding(check, Level.WARNING, text, advice, facts)


def problem(check: str, text: str, advice: str, **facts: Any) -> Finding:
    """Workers fail by it, or a guarantee does not hold."""
    return Finding(check, Level.PROBLEM, text, advice, facts)
