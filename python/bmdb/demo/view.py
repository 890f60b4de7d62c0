"""The demo while it runs: a display that renews itself on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live

_LINE_EVERY = 2.0  # seconds
_BAR_WIDTH = 24


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of machines, all from one snapshot of the database, and what each worker said last."""

    done: int
    leased: int
    backoff: int
    waiting: int
    can_be_done: int
    workers: Sequence[tuple[str, str]]

    def __str__(self) -> str:
        return (
            f"{self.done} of {self.can_be_done} done, {self.leased} leased,"
            f" {self.backoff} in backoff, {self.waiting} waiting"
        )


class View(Protocol):
    """Where the demo tells what goes on. A context manager."""

    def say(self, text: str) -> None:
        """Something happened."""

    def show(self, progress: Progress) -> None:
        """How far it has come; called several times a second."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class LineView:
    """One line for each thing that happened, and now and then one on the progress."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begun = time.monotonic()
        self._shown = 0.0

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self._begun:5.1f} s  {text}", file=self._stream, flush=True)

    def show(self, progress: Progress) -> None:
        now = time.monotonic()
        if now >= self._shown + _LINE_EVERY:
            self._shown = now
            self.say(str(progress))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


class LiveView:
    """A bar and the workers, renewed in place; what happened scrolls by above it and stays."""

    def __init__(self, console: Console, live: Live) -> None:
        self._console = console
        self._live = live
        self._begun = time.monotonic()

    def say(self, text: str) -> None:
        from rich.text import Text

        when = Text(f"{time.monotonic() - self._begun:5.1f} s  ", style="dim")
        self._console.print(when + Text(text))

    def show(self, progress: Progress) -> None:
        self._live.update(self._display(progress), refresh=True)

    def _display(self, progress: Progress) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        bar = Table.grid(padding=(0, 2, 0, 0))
        bar.add_row(
            ProgressBar(total=progress.can_be_done, completed=progress.done, width=_BAR_WIDTH), Text(str(progress))
        )
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        # What does not fit on the screen would make it scroll with every renewal.
        room = max(1, self._console.height - 6)
        for name, state in progress.workers[:room]:
            style = "red" if state.startswith(("killed", "stopped")) else "dim" if state.startswith("idle") else ""
            table.add_row(name, Text(state, style=style, no_wrap=True, overflow="ellipsis"))
        return Group(Text(""), bar, Text(""), table)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()


def view_on(stream: TextIO) -> View:
    """The display for a terminal, if the stream is one and the package rich is installed; else lines."""
    if not stream.isatty():
        return LineView(stream)
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        return LineView(stream)
    console = Console(file=stream, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        return LineView(stream)
    live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)
    return LiveView(console, live)


def standard_view(*, json: bool) -> View:
    """On standard output; on standard error when that is for the report as JSON alone."""
    return LineView(sys.stderr) if json else view_on(sys.stdout)
