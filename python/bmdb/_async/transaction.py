"""The loop around a callback: begin, call, conclude, and again if the core says so."""

from __future__ import annotations

# async only
import inspect

# end async only
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from bmdb import _core
from bmdb._async.queries import AsyncQueries
from bmdb.callbacks import Nesting, check_result
from bmdb.errors import AmbiguousCommitError

T = TypeVar("T")


async def run(core: _core.Connection, tx: _core.Transaction, fn: Callable[[AsyncQueries], Awaitable[T]]) -> T:
    """Runs `fn` in the transaction until it is committed, and returns what its last run returned.

    Raises what `fn` raised, unchanged, or the error that kept its transaction from being committed.
    """
    with Nesting(core):
        try:
            while True:
                await tx.begin_async()
                try:
                    # async only
                    returned: Any = fn(AsyncQueries(tx))
                    result: T = await returned if inspect.isawaitable(returned) else returned
                    # end async only
                    # sync only
                    # result = fn(AsyncQueries(tx))
                    # end sync only
                    check_result(result)
                except BaseException as error:
                    if await tx.conclude_async(error) == "again":
                        continue
                    raise
                if await tx.conclude_async() == "committed":
                    return result
        except AmbiguousCommitError as error:
            error._ask(core)
            raise
