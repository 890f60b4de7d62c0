"""The loop around a callback: begin, call, conclude, and again if the core says so."""

from __future__ import annotations

# async only
import asyncio
import contextlib
import inspect

# end async only
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from bmdb import _core
from bmdb._async.queries import AsyncQueries
from bmdb._async.stepped import AsyncStepped
from bmdb._core import Nesting

# async only
from bmdb.background import outlasted

# end async only
from bmdb.callbacks import check_result
from bmdb.errors import AmbiguousCommitError, RetriesExhaustedError
from bmdb.tracing import Step

T = TypeVar("T")


async def run(
    core: _core.Connection | None,
    tx: AsyncStepped,
    fn: Callable[[Any], Awaitable[T]],
    make: Callable[[Any], object] = AsyncQueries,
    step: Step | None = None,
) -> T:
    """Runs `fn` in the transaction until it is committed, and returns what its last run returned.

    `make` makes what `fn` is given of the transaction. `core` is asked how a lost COMMIT ended. `step` is told how it
    goes, by whoever watches.

    Raises what `fn` raised, unchanged, or the error that kept its transaction from being committed. A CancelledError
    or KeyboardInterrupt amid COMMIT surfaces once the outcome is known: its attribute `committed` is True, False, or
    None when that cannot be known.
    """
    if step is not None:
        with step:
            step.runs(tx)
            return await _run(core, tx, fn, make, step)
    return await _run(core, tx, fn, make, None)


async def _run(
    core: _core.Connection | None,
    tx: AsyncStepped,
    fn: Callable[[Any], Awaitable[T]],
    make: Callable[[Any], object],
    step: Step | None,
) -> T:
    with Nesting(core or tx):
        try:
            while True:
                # async only
                try:
                    await tx.begin_async()
                except asyncio.CancelledError as cancelled:
                    with contextlib.suppress(Exception):  # that it has not begun, most of all
                        await _settled(tx, tx.conclude_async(cancelled))
                    cancelled.committed = False  # type: ignore[attr-defined]
                    raise
                # end async only
                # sync only
                # tx.begin()
                # end sync only
                try:
                    # async only
                    returned: Any = fn(make(tx))
                    result: T = await returned if inspect.isawaitable(returned) else returned
                    # end async only
                    # sync only
                    # result = fn(make(tx))
                    # end sync only
                    check_result(result)
                # async only
                except GeneratorExit:
                    # The task is gone with its event loop, so nothing can be awaited; the core rolls back.
                    raise
                # end async only
                except BaseException as error:
                    if await _conclude_after(tx, error) == "again":
                        if step is not None:
                            step.again(error)
                        continue
                    raise
                # async only
                if await _settled(tx, tx.conclude_async()) == "committed":
                    return result
                # end async only
                # sync only
                # if tx.conclude() == "committed":
                #     return result
                # end sync only
                if step is not None:
                    step.again(None)
        except AmbiguousCommitError as error:
            if core is not None:
                error._ask(core)
            raise


async def _conclude_after(tx: AsyncStepped, raised: BaseException) -> str:
    """Concludes after the callback raised; another error than that one keeps it in its chain."""
    try:
        # async only
        if isinstance(raised, asyncio.CancelledError):
            raised.committed = False  # type: ignore[attr-defined]
        return await _settled(tx, tx.conclude_async(raised))
        # end async only
        # sync only
        # return tx.conclude(raised)
        # end sync only
    except BaseException as error:
        if error.__context__ is None:
            error.__context__ = raised
        if isinstance(error, RetriesExhaustedError) and error.__cause__ is None:
            error.__cause__ = raised
        raise


# async only
async def _settled(tx: AsyncStepped, conclusion: Awaitable[str]) -> str:
    """Waits for a conclusion to its end even if cancelled meanwhile, and as often as that happens.

    The CancelledError then says by its attribute `committed` how the transaction ended.
    """
    future, cancelled = await outlasted(conclusion)
    if cancelled is None:
        return future.result()
    committed: bool | None
    try:
        conclusion_reached = future.result()
    except AmbiguousCommitError:
        committed = None
    except asyncio.CancelledError as inner:
        # As at the end of asyncio.run, which cancels every task.
        committed = getattr(inner, "committed", None)
    except Exception:
        committed = False
    else:
        committed = conclusion_reached == "committed"
        if conclusion_reached == "again":
            # Nobody begins again: the work and the connection must not stay with a transaction that has none open.
            with contextlib.suppress(Exception):
                await _settled(tx, tx.conclude_async(cancelled))
    cancelled.committed = committed  # type: ignore[attr-defined]
    raise cancelled


# end async only
