"""What `pooler=True` costs: the same acts straight and through PgBouncer, in turn, and the table in docs/poolers.md.

make bench-pooler
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import bmdb

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benches.python.marked import write  # noqa: E402
from benches.python.report import duration, table  # noqa: E402
from tests.database import EmbeddedServer  # noqa: E402
from tests.pgbouncer import PgBouncer  # noqa: E402

PAGE = ROOT / "docs" / "poolers.md"
MARKS = ("<!-- written by make bench-pooler -->", "<!-- end -->")
ROUNDS, TIMES = 60, 20
PROCESS = "Priced"
UNREPORTED = bmdb.eligible(lacking=("hardware_report",))


def acts(session: bmdb.Session) -> dict[str, Callable[[], object]]:
    """What is measured."""

    def leased() -> None:
        session.work(PROCESS, UNREPORTED).finish()

    def by_callback() -> None:
        session.work(PROCESS, lambda q: q.fetch("SELECT machine_id FROM machines LIMIT 1")).finish(lambda q: None)

    def three(q: bmdb.Queries) -> None:
        for number in range(3):
            q.fetch_value("SELECT count(*) FROM work WHERE process = $1 AND token > $2", PROCESS, number)

    return {
        "an empty `transact`": lambda: session.transact(lambda q: None),
        "`transact` with three statements": lambda: session.transact(three),
        "`work` by eligibility and `finish`": leased,
        "`work` and `finish` by callback": by_callback,
    }


def main() -> None:
    """Measures, and writes the table."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(EmbeddedServer())
        database = stack.enter_context(server.temporary_database())
        with bmdb.connect(database, component="bench", migrate=True) as made, made.start_session() as session:
            session.transact(lambda q: [q.new_machine() for _ in range(50)])
        poolers = {mode: stack.enter_context(PgBouncer(server, mode)) for mode in ("transaction", "session")}
        ways: dict[str, dict[str, Callable[[], object]]] = {}
        for name, conninfo, pooler in (
            ("straight", database, False),
            ("straight, `pooler=True`", database, True),
            ("PgBouncer, session mode", poolers["session"].dsn(database), True),
            ("PgBouncer, transaction mode", poolers["transaction"].dsn(database), True),
        ):
            connection = stack.enter_context(bmdb.connect(conninfo, component="bench", pooler=pooler))
            ways[name] = acts(stack.enter_context(connection.start_session(interval=600)))
        took: dict[tuple[str, str], list[float]] = {}
        # Turn by turn, so that what else the machine does meets all ways.
        for _ in range(ROUNDS):
            for act in next(iter(ways.values())):
                for way, those in ways.items():
                    started = time.perf_counter()
                    for _ in range(TIMES):
                        those[act]()
                    took.setdefault((way, act), []).append((time.perf_counter() - started) / TIMES)
    heads = list(next(iter(ways.values())))
    text = table(("", *heads), [(way, *(duration(statistics.median(took[way, act])) for act in heads)) for way in ways])
    print(text)
    write(PAGE, MARKS, text)


if __name__ == "__main__":
    main()
