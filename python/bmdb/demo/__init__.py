"""The demo: a rack of machines, eight worker processes, and what becomes of the work when workers die or freeze.

It runs on any Linux machine on which the package is installed, with a PostgreSQL server of its own that is thrown away
at the end. `bmdb demo` runs it from the command line.
"""

from pathlib import Path

__all__ = ["run"]


def run(
    *,
    machines: int = 240,
    workers: int = 8,
    json: bool = False,
    rack: Path | None = None,
    keep: Path | None = None,
) -> int:
    """Runs the demo and prints its report, as text or as one JSON object, to standard output.

    Progress goes to the terminal while it runs (with `json`: as lines to standard error). `rack` is a file of machines
    like examples/rack.csv, by default that one; its machines are used again if there are fewer than asked for.

    With `keep` the database is left there, as embedded:PATH, with one of the machines that never answered on hold; the
    report ends with how to look at it.

    Returns the exit status: 0 when every invariant held, 1 when one did not, 130 after Ctrl-C. No server, worker or
    endpoint is left behind whatever happens. Raises ConfigError for fewer than 2 workers or 10 machines, for a rack
    that cannot be read and for a place that is taken, ConnectionFailedError when the server does not start.
    """
    # The workers import this package too, and need none of what follows.
    from bmdb.demo.show import show

    return show(machines=machines, workers=workers, json=json, rack=rack, keep=keep)
