"""A process for `memory.py` that does nothing, and tells how much memory that takes.

    idling.py {psycopg,bmdb} CONNINFO

Prints the kilobytes resident: with psycopg imported, or with bmdb connected and one session alive.
"""

import sys
import time
from pathlib import Path


def resident_kib() -> int:
    """RSS of this process in KiB."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Rss:"))


if __name__ == "__main__":
    import psycopg  # noqa: F401

    if sys.argv[1] == "psycopg":
        print(resident_kib())
    else:
        import bmdb

        with bmdb.connect(sys.argv[2], component="benchmark") as connection, connection.start_session(interval=1):
            # Some beats, so that all that an idle worker does has happened.
            time.sleep(1.5)
            print(resident_kib())
