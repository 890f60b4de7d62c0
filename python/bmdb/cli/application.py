"""The application that the commands belong to, the options that they share, and how they reach a database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import bmdb
from bmdb.conninfo import ENVIRONMENT_VARIABLE

__all__ = [
    "BadAnswer",
    "Conninfo",
    "GivenConninfo",
    "Json",
    "Limit",
    "Refused",
    "app",
    "check_given",
    "chosen",
    "opened",
    "understood",
]

_EPILOG = """\b
Exit status:
  0    done
  1    the answer is bad (what was asked for does not exist, an invariant of
       the demo broke, the doctor found a problem), or the database failed
  2    the command line or the connection string cannot be used
  130  interrupted; 128 and the number of the second signal for `bmdb run`

The database is named by --conninfo or $BMDB_CONNINFO: a libpq URI or key=value string, or embedded:PATH."""

# As they are listed: to begin with, to look, to step in, to keep in order.
_ORDER = (
    ("demo", "migrate", "run", "doctor"),
    ("top", "machines", "explain", "history", "work", "backoffs", "holds", "sessions", "processes", "stats", "web"),
    ("hold", "release", "force-release", "clear-backoff", "release-quarantine"),
    ("collect", "prune", "backoff"),
)


class _Commands(TyperGroup):
    """The commands in the order in which people need them, whatever file they are in."""

    def list_commands(self, ctx: Any) -> list[str]:
        places = {name: place for place, name in enumerate(chain.from_iterable(_ORDER))}
        return sorted(self.commands, key=lambda name: places.get(name, len(places)))


app = typer.Typer(
    name="bmdb",
    cls=_Commands,
    help="Leases work on machines, straight in the SQL database that describes them.",
    epilog=_EPILOG,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Conninfo = Annotated[
    str | None,
    typer.Option("--conninfo", "-c", metavar="CONNINFO", help=f"The database; by default ${ENVIRONMENT_VARIABLE}."),
]
GivenConninfo = Annotated[
    str | None, typer.Argument(metavar="[CONNINFO]", help="The database; the same as --conninfo.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON: timestamps in ISO 8601, causes whole.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Show so many at most.")]


class Refused(typer.TyperException):
    """A command line that can be parsed, but not followed."""

    exit_code = 2


class BadAnswer(typer.TyperException):
    """The command ran, and what it found is not what was asked for."""

    exit_code = 1


@contextmanager
def opened(conninfo: str | None, *, migrated: bool = True) -> Iterator[bmdb.Connection]:
    """A connection to the database that was named; unless told otherwise, only to one with a schema."""
    check_given(conninfo)
    with bmdb.connect(conninfo or None, component="bmdb command line", pool_size=2, pooler=None) as connection:
        if migrated and connection.schema_version() == 0:
            raise BadAnswer("this database has no schema of bmdb: run `bmdb migrate` first")
        yield connection


@contextmanager
def understood() -> Iterator[None]:
    """What is said on the command line and makes no sense is the command line's fault."""
    try:
        yield
    except ValueError as error:
        raise Refused(str(error)) from None


def chosen(argument: str | None, option: str | None) -> str | None:
    """The database of a command that takes it in either way."""
    if argument and option:
        raise Refused("two databases given: leave out CONNINFO or --conninfo")
    return argument or option


def check_given(conninfo: str | None) -> None:
    """Refuses a command line that names no database, nor does the environment."""
    if not conninfo and not os.environ.get(ENVIRONMENT_VARIABLE):
        raise Refused(f"no database given: say --conninfo CONNINFO, or set {ENVIRONMENT_VARIABLE}")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"bmdb {bmdb.__version__}")
        raise typer.Exit


@app.callback()
def front(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Leases work on machines, straight in the SQL database that describes them."""
