"""A worker of one's own: reboots every machine that was provided, once, and records it in a table of its own."""

import time
from collections.abc import Callable
from uuid import UUID

import psycopg

import bmdb

# A table machine_… whose key is machine_id is a tag like bmdb's own.
TABLE = """
    CREATE TABLE IF NOT EXISTS machine_rebooted (
        machine_id uuid PRIMARY KEY REFERENCES machines,
        token bigint NOT NULL
    )
"""
REBOOT = bmdb.Process(
    "Reboot",
    backoff=bmdb.Backoff(60, 3600, 2),
    eligible=bmdb.eligible(having=("provided",), lacking=("rebooted",)),
)


def prepare(connection: bmdb.Connection) -> None:
    """Makes the table, if it is not there."""
    with psycopg.connect(connection.conninfo) as pg:
        pg.execute(TABLE)


def record(q: bmdb.Queries, machine: UUID, token: int) -> None:
    """Notes that the machine was rebooted, under which token. A callback: it may run again."""
    q.execute("INSERT INTO machine_rebooted VALUES ($1, $2)", machine, token)


def reboot_next(session: bmdb.Session, reboot: Callable[[UUID, int], object]) -> UUID | None:
    """Reboots one machine that needs it; its id, or None when there is none now."""
    try:
        work = session.work(REBOOT)
    except (bmdb.NothingToDo, bmdb.WorkConflictError):
        return None
    with work:
        try:
            reboot(work.machine, work.token)
        except OSError as error:
            work.fail(str(error))
        else:
            work.finish(lambda q: record(q, work.machine, work.token))
    return work.machine


def press_the_button(machine: UUID, token: int) -> None:
    """What takes long, and happens outside the database."""
    print(f"rebooting {machine} under token {token}", flush=True)
    time.sleep(0.5)


def main() -> None:
    """Runs until no machine needs a reboot."""
    with bmdb.connect(component="rebooter") as connection:
        prepare(connection)
        with connection.start_session(interval=1) as session:
            while reboot_next(session, press_the_button) is not None:
                pass


if __name__ == "__main__":
    main()
