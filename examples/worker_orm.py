"""A worker whose outcome goes into tables of its own, through SQLAlchemy: both land, or neither."""

import os
from uuid import UUID

import psycopg
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import bmdb

PAINT = bmdb.Process("Paint", backoff=bmdb.Backoff(60, 3600, 1.5))


class Base(DeclarativeBase):
    """This program's tables."""


class Painted(Base):
    """A table machine_… whose key is machine_id is a tag like bmdb's own, once it references machines."""

    __tablename__ = "machine_painted"
    machine_id: Mapped[UUID] = mapped_column(primary_key=True)
    colour: Mapped[str]


def unpainted(q: bmdb.Queries) -> list[bmdb.Row]:
    return q.fetch(
        "SELECT machine_id FROM machines LEFT JOIN machine_painted USING (machine_id)"
        " WHERE colour IS NULL ORDER BY machine_id LIMIT 16"
    )


conninfo = os.environ["BMDB_CONNINFO"]
engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(conninfo))
with bmdb.connect(conninfo, component="painter", migrate=True) as connection, connection.start_session() as session:
    Base.metadata.create_all(engine)
    while True:
        try:
            work = session.work(PAINT, unpainted)
        except (bmdb.NothingToDo, bmdb.WorkConflictError):
            break
        with work:
            colour = "red" if work.machine.int % 2 else "blue"
            work.finish(lambda q: q.orm.add(Painted(machine_id=work.machine, colour=colour)), engine=engine)  # noqa: B023
engine.dispose()
