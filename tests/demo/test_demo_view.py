"""The view: lines where nobody can see a display, a display with every worker on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.live import Live

from bmdb.demo import view
from bmdb.demo.view import LineView, LiveView, Progress, view_on

PROGRESS = Progress(
    done=12, leased=3, backoff=2, waiting=5, can_be_done=20,
    workers=[("worker 1", "holds [red]lum-7[/red] (Oslo)"), ("worker 2", "killed (SIGKILL)"), ("worker 3", "idle")],
)  # fmt: skip


def test_lines_tell_every_event_and_now_and_then_the_progress() -> None:
    stream = io.StringIO()
    with LineView(stream) as shown:
        shown.show(PROGRESS)
        shown.show(PROGRESS)
        shown.say("worker 2 was killed")
    lines = stream.getvalue().splitlines()
    assert [line.split(" s  ")[1] for line in lines] == [
        "12 of 20 done, 3 leased, 2 in backoff, 5 waiting",
        "worker 2 was killed",
    ]


def live(stream: io.StringIO, height: int = 25) -> LiveView:
    console = Console(file=stream, force_terminal=True, width=100, height=height, highlight=False)
    return LiveView(console, Live(console=console, auto_refresh=False, transient=True))


def test_the_display_has_progress_events_and_every_worker_as_they_are() -> None:
    stream = io.StringIO()
    with live(stream) as shown:
        shown.show(PROGRESS)
        shown.say("worker 2 was [killed]")
    text = stream.getvalue()
    assert "12 of 20 done, 3 leased, 2 in backoff, 5 waiting" in text
    assert "holds [red]lum-7[/red] (Oslo)" in text
    assert "killed (SIGKILL)" in text
    assert "worker 2 was [killed]" in text
    assert text.rstrip().endswith("\x1b[2K")


def test_workers_that_do_not_fit_are_left_out() -> None:
    stream = io.StringIO()
    with live(stream, height=8) as shown:
        shown.show(PROGRESS)
    assert "worker 2" in stream.getvalue()
    assert "worker 3" not in stream.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_display_is_for_terminals_that_can_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    assert isinstance(view_on(Terminal()), LiveView)
    assert isinstance(view_on(io.StringIO()), LineView)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(view_on(Terminal()), LineView)


def test_json_keeps_standard_output_for_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    view.standard_view(json=True).say("something")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "something" in shown.err
