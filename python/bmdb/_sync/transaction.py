# Generated from python/bmdb/_async/transaction.py by tools/generate_sync.py: do not edit.
"""The loop around a callback: begin, call, conclude, and again if the core says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from bmdb import _core
from bmdb._core import Nesting
from bmdb._sync.queries import Queries
from bmdb._sync.stepped import Stepped
from bmdb.callbacks import check_result
from bmdb.errors import AmbiguousCommitError, RetriesExhaustedError
from bmdb.tracing import Step

T = TypeVar("T")


def run(
    core: _core.Connection | None,
    tx: Stepped,
    fn: Callable[[Any], T],
    make: Callable[[Any], object] = Queries,
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
            return _run(core, tx, fn, make, step)
    return _run(core, tx, fn, make, None)


def _run(
    core: _core.Connection | None,
    tx: Stepped,
    fn: Callable[[Any], T],
    make: Callable[[Any], object],
    step: Step | None,
) -> T:
    with Nesting(core or tx):
        try:
            while True:
                tx.begin()
                try:
                    result = fn(make(tx))
                    check_result(result)
                except BaseException as error:
                    if _conclude_after(tx, error) == "again":
                        if step is not None:
                            step.again(error)
                        continue
                    raise
                if tx.conclude() == "committed":
                    return result
                if step is not None:
                    step.again(None)
        except AmbiguousCommitError as error:
            if core is not None:
                error._ask(core)
            raise


def _conclude_after(tx: Stepped, raised: BaseException) -> str:
    """Concludes after the callback raised; another error than that one keeps it in its chain."""
    try:
        return tx.conclude(raised)
    except BaseException as error:
        if error.__context__ is None:
            error.__context__ = raised
        if isinstance(error, RetriesExhaustedError) and error.__cause__ is None:
            error.__cause__ = raised
        raise
