"""Transactions on a connection of an SQLAlchemy engine, with an ORM session in them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from psycopg.pq import TransactionStatus
from sqlalchemy import exc

# async only
from sqlalchemy.ext.asyncio import AsyncConnection as SaConnection
from sqlalchemy.ext.asyncio import AsyncEngine as SaEngine
from sqlalchemy.ext.asyncio import AsyncSession as OrmSession

# end async only
# sync only
# from sqlalchemy import Connection as SaConnection
# from sqlalchemy import Engine as SaEngine
# from sqlalchemy.orm import Session as OrmSession
#
# end sync only
from bmdb import logs
from bmdb._async.carrier import AsyncCarrier
from bmdb._async.foreign import AsyncForeignTransaction, AsyncPsycopgQueries
from bmdb.errors import ConfigError, ConnectionFailedError, WorkStateError

_LOGGER = logs.logger("bmdb.foreign")


class AsyncOrmQueries(AsyncPsycopgQueries):
    """The queries of a transaction on a connection of an SQLAlchemy engine of yours, and an ORM session in it."""

    __slots__ = ()

    @property
    def orm(self) -> OrmSession:
        """The ORM session: flushed when the callback returns, closed with its run.

        Its `commit()` and `rollback()` end a savepoint, never the transaction. Objects keep what was loaded
        (expire_on_commit=False), so that they can be returned.
        """
        carrier = self._core.carrier
        if not isinstance(carrier, AsyncEngineCarrier) or carrier.orm is None or not self._core.running:
            raise WorkStateError("this transaction has ended: use q only inside its callback")
        return carrier.orm


class AsyncEngineTransaction(AsyncForeignTransaction):
    """A transaction on a connection that an engine lends."""

    def queries(self, _: object = None) -> AsyncOrmQueries:
        return AsyncOrmQueries(self)


class AsyncEngineCarrier(AsyncCarrier):
    """Takes a connection from the engine for each attempt, and gives it back clean, or invalidated when it broke.

    SQLAlchemy believes that it holds the transaction; psycopg's own block around it makes a commit or rollback of
    SQLAlchemy's in the callback an error instead of the end of the fence.
    """

    replaceable = True

    def __init__(self, engine: SaEngine) -> None:
        super().__init__(None)
        self._engine = engine
        self._pooled: SaConnection | None = None
        self._transaction: Any = None
        self.orm: OrmSession | None = None

    async def acquire(self) -> None:
        await self._give_back()
        try:
            pooled = self._pooled = await self._engine.connect()
            # async only
            raw = await pooled.get_raw_connection()
            # end async only
            # sync only
            # raw = pooled.connection
            # end sync only
        except exc.TimeoutError as error:
            # All are in use, and have been for as long as the pool waits.
            self.replaceable = False
            raise ConnectionFailedError(str(error)) from error
        except exc.DBAPIError as error:
            raise ConnectionFailedError(str(error.orig)) from error
        self.connection = raw.driver_connection

    async def begin(self, isolation: str) -> None:
        await super().begin(isolation)
        pooled = self._pooled
        if pooled is None:
            raise WorkStateError("no connection was taken from the engine")
        self._transaction = await pooled.begin()
        self.orm = OrmSession(pooled, join_transaction_mode="create_savepoint", expire_on_commit=False)

    async def flush(self) -> None:
        if self.orm is None or self.gone or self.status is not TransactionStatus.INTRANS:
            return
        try:
            await self.orm.commit()
        except exc.PendingRollbackError as error:
            # Raised for a flush whose error the callback has swallowed: that error says more.
            raise error from self.noted

    async def commit(self) -> bool:
        doubtful = await super().commit()
        with _logged("tell SQLAlchemy of a commit"):
            await self._transaction.commit()
        return doubtful

    async def roll_back(self) -> None:
        if self.orm is not None and not self.gone and self.status is not TransactionStatus.ACTIVE:
            # While there is a savepoint to end; afterwards it would be looked for in vain.
            with _logged("close the ORM session"):
                await self.orm.close()
        await super().roll_back()
        await self._give_back()

    async def release(self) -> None:
        await super().release()
        await self._give_back()

    async def _give_back(self) -> None:
        pooled, self._pooled = self._pooled, None
        if pooled is None:
            return
        await super().release()
        orm, self.orm, self._transaction = self.orm, None, None
        with _logged("give a connection back to its engine"):
            if self.gone:
                await pooled.invalidate()
            if orm is not None:
                await orm.close()
        with _logged("give a connection back to its engine"):
            await pooled.close()
        self.connection = None


@contextlib.contextmanager
def _logged(what: str) -> Iterator[None]:
    """For what changes nothing about the transaction any more."""
    try:
        yield
    except Exception as error:
        _LOGGER.warning("could not %s: %s", what, error)


def check_engine(engine: Any) -> SaEngine:
    """Refuses what is no engine of this kind (TypeError), and one that does not speak through psycopg (ConfigError)."""
    if not isinstance(engine, SaEngine):
        kind = f"{type(engine).__module__}.{type(engine).__qualname__}"
        # async only
        raise TypeError(f"engine must be an sqlalchemy.ext.asyncio.AsyncEngine, not {kind}")
        # end async only
        # sync only
        # raise TypeError(f"engine must be an sqlalchemy.Engine, not {kind}")
        # end sync only
    dialect = engine.dialect
    if dialect.name != "postgresql" or not dialect.driver.startswith("psycopg") or dialect.driver == "psycopg2":
        raise ConfigError(
            f"the engine uses {dialect.name}+{dialect.driver}, and bmdb needs psycopg 3: create it with"
            " postgresql+psycopg://"
        )
    return engine
