"""Which machines need a process, and what an end of work changes of their tags: declared, so that the core can do
it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bmdb import _core
from bmdb._core import Change, Eligibility

# As many as the core claims in one transaction.
MOST_LEASES = 500

__all__ = ["Change", "Eligibility", "clear_tag", "eligible", "set_tag"]


def eligible(
    *,
    having: Iterable[str] = (),
    lacking: Iterable[str] = (),
    where: str | None = None,
    params: Sequence[object] = (),
    order_by: str | None = None,
    sql: str | None = None,
) -> Eligibility:
    """Declares which machines need a process, in place of a callback: the core then claims them itself, many at once.

    * `having`, `lacking`: names of tags that a machine must have, and must not have.
    * `where`: a condition in SQL over the columns of `machine_<tag>` for each tag in `having`, and of `machines`. What
      it refers to by `$1`, `$2` and so on is in `params`.
    * `order_by`: an order over the same columns, in SQL. Without it no machine comes before another: the claim goes on
      where the last one stopped, which costs the same in a fleet of any size. With it every claim sorts all eligible
      machines.
    * `sql`: a whole query for a column `machine_id` in place of the others; it is judged in its own order, as a whole.

    It is judged twice, before and after a machine is leased, so it must say the same both times: no `random()`, and no
    `LIMIT` that another lease would shift. What looks at the table `work` is refused for that reason.

    Not part of it, since every claim sees to that: a machine that is leased for the process or for one that excludes
    it, in backoff, held by an operator, or in quarantine is not leased.

    Raises ValueError for what contradicts itself or cannot be part of a query, TypeError for a wrong type. A tag or a
    column that the database does not have is told by the first claim: ValueError naming the tags that it has, or
    DatabaseError.
    """
    for name, text in (("where", where), ("order_by", order_by), ("sql", sql)):
        if text is not None and not isinstance(text, str):
            raise TypeError(f"{name} must be a str or None, not {type(text).__name__}")
    if isinstance(params, str | bytes) or not isinstance(params, Sequence):
        raise TypeError(f"params must be a tuple of values, not {type(params).__name__}")
    return Eligibility(_tags("having", having), _tags("lacking", lacking), where, tuple(params), order_by, sql)


def set_tag(tag: str, /, **values: Any) -> Change:
    """Part of an end of work: the machine has this tag then, with these values of its columns.

    Columns that are not named keep their values, or get their defaults. A value must fit its column's type, as a
    query's parameter must. A tag or column that is not there makes the end fail with a ValueError that names those that
    are.
    """
    return _core.Change(_tag(tag), values)


def clear_tag(tag: str, /) -> Change:
    """Part of an end of work: the machine does not have this tag any more."""
    return _core.Change(_tag(tag), None)


def lease_limit(limit: object) -> int:
    """How many leases `work_many` may take; ValueError unless it is 1 to 500."""
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise TypeError(f"limit must be an int, not {type(limit).__name__}")
    if not 1 <= limit <= MOST_LEASES:
        raise ValueError(f"limit must be 1 to {MOST_LEASES}, not {limit}")
    return limit


def _tag(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a tag is named by a str, not {type(name).__name__}")
    return str.__str__(name)


def _tags(what: str, names: object) -> tuple[str, ...]:
    if isinstance(names, str | bytes) or not isinstance(names, Iterable):
        raise TypeError(f"{what} must be a tuple of tags' names, not {type(names).__name__}")
    return tuple(_tag(name) for name in names)
