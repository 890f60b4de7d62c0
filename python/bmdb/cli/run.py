"""From a command line to an exit status: whatever goes wrong is one line on standard error, and no traceback."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from collections.abc import Sequence

import typer
from typer.completion import shell_complete

from bmdb import conninfo as _conninfo
from bmdb.cli import commands, examination, interventions, leases, numbers, pages, questions, top, upkeep  # noqa: F401 - the commands
from bmdb.cli.application import app
from bmdb.cli.terminal import WarningHandler, print_error
from bmdb.errors import ConfigError, DatabaseError, Error

__all__ = ["run"]

# Set by what `bmdb --install-completion` gives to the shell.
_COMPLETION = "_BMDB_COMPLETE"
_BROKEN_PIPE = 141
_CONNINFO = re.compile(r"://|password\s*=", re.IGNORECASE)


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit status, one that `bmdb --help` lists or 141 for a closed pipe.

    Raises KeyboardInterrupt.
    """
    if sys.stdout is None:
        # Closed by whoever started this.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What the terminal's encoding lacks is shown by its number.
            stream.reconfigure(errors="backslashreplace")
    warnings = WarningHandler()
    logger = logging.getLogger("bmdb")
    logger.addHandler(warnings)
    try:
        status = _invoke(arguments)
        sys.stdout.flush()
        return status
    except OSError as error:
        # The interpreter flushes again when it exits, and must then find somebody who reads.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return _BROKEN_PIPE
        print_error(f"the answer cannot be written: {error.strerror or error}")
        return 1
    except typer.TyperException as error:
        print_error(_without_secrets(_told(error), arguments))
        return error.exit_code
    except Error as error:
        print_error(_without_secrets(_told(error), arguments))
        return 2 if isinstance(error, ConfigError) else 1
    finally:
        logger.removeHandler(warnings)


def _invoke(arguments: Sequence[str]) -> int:
    command = typer.main.get_command(app)
    if asked := os.environ.get(_COMPLETION):
        return shell_complete(command, {}, "bmdb", _COMPLETION, asked)
    # Without arguments the help is shown, as an answer to a line that asks for nothing.
    given = list(arguments) or ["--help"]
    try:
        # Typer's own way in would print errors over several lines and hide a closed pipe.
        with command.make_context("bmdb", given) as context:
            command.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code if arguments else 2
    return 0


def _told(error: Error | typer.TyperException) -> str:
    """What went wrong, and where to read on."""
    if isinstance(error, typer.TyperException):
        message = error.format_message().rstrip(".")
        # Typer's own complaints know the command that they are about.
        context = getattr(error, "ctx", None)
        return message if context is None else f"{message} (see {context.command_path} --help)"
    message = str(error)
    if isinstance(error, DatabaseError) and error.hint and error.hint not in message:
        return f"{message} ({error.hint})"
    return message


def _without_secrets(message: str, arguments: Sequence[str]) -> str:
    """The message with every connection string that was on the command line, wherever it stood, freed of secrets."""
    for argument in arguments:
        for text in (argument, argument.partition("=")[2], argument.removeprefix("-c")):
            if _CONNINFO.search(text):
                shown = _conninfo.redact(text)
                message = message.replace(text, shown).replace(repr(text)[1:-1], shown)
    return message
