"""One transaction for Django's ORM and a session of bmdb's: copy this into your project."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.db import connections, transaction

T = TypeVar("T")


def together(end: Callable[..., T], fn: Callable[[Any], Any], using: str = "default") -> T:
    """Runs `fn(q)` in `transaction.atomic()` inside the transaction of `end`: `session.transact`, `work.finish`, …

    What the ORM writes and what bmdb writes land together, or not at all. `fn` may run many times. Hooks of
    `transaction.on_commit` run once, after the commit, those of the committed run alone.
    """
    django = connections[using]
    # From here on atomic() makes a savepoint. Raises TransactionManagementError inside another atomic().
    django.set_autocommit(False)

    def attempt(q: Any) -> Any:
        django.run_on_commit.clear()  # what an earlier run had registered was rolled back with it
        with transaction.atomic(using):
            returned = fn(q)
            if transaction.get_rollback(using):  # this atomic() would roll back without a word
                q.fetch_value("SELECT 1")  # fails after a database error that fn has swallowed; bmdb knows which
                raise transaction.TransactionManagementError("fn has asked for a rollback")
            return returned

    try:
        returned = end(attempt, connection=django.connection)
        django.commit()  # sends nothing, as nothing is open any more: from this Django knows to run the hooks
        return returned
    except BaseException:
        django.run_on_commit.clear()
        raise
    finally:
        if django.connection.closed:
            django.close()  # Django opens another when it needs one
        else:
            django.set_autocommit(True)  # here the hooks run
