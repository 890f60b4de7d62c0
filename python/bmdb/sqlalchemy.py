"""What callbacks get when a transaction runs on an SQLAlchemy engine: `session.transact(fn, engine=engine)`.

Needs the extra `sqlalchemy` and an engine on psycopg 3 (postgresql+psycopg). The callback's `q` is an `OrmQueries` or
`AsyncOrmQueries`: bmdb's queries, `q.orm`, an ORM session, and `q.connection`, psycopg's connection, all in the one
transaction that the session fences, and that ends the work if it is one of `finish`, `fail` or `cancel`.
"""

from __future__ import annotations

from bmdb._async.engine import AsyncOrmQueries
from bmdb._sync.engine import OrmQueries

__all__ = ["AsyncOrmQueries", "OrmQueries"]
