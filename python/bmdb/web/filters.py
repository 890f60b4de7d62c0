"""What machines are asked for by, as an address says it, and the pages that follow from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from starlette.datastructures import QueryParams

from bmdb import _core
from bmdb.web.catalogue import Tags
from bmdb.web.texts import moment_of

__all__ = ["ORDERS", "STATES", "Filter"]

STATES = {
    "leased": "leased",
    "backoff": "in backoff",
    "held": "held",
    "quarantined": "in quarantine",
    "idle": "idle",
    "eligible": "eligible now",
}
ORDERS = {"id": "id", "-id": "id, last first", "created": "oldest first", "-created": "newest first"}
ROWS = 100

_LONGEST = 200
_PREFIX = re.compile(r"[0-9a-f]{1,32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which machines are wanted, in which order, and where the page begins.

    `after` and `before` are a machine's place in the order: its id, with `created` also when it was made.
    """

    having: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    process: str = ""
    state: str = ""
    prefix: str = ""
    provider_id: str = ""
    sort: str = "id"
    after: str = ""
    before: str = ""

    @classmethod
    def read(cls, query: QueryParams) -> Filter:
        """The filter of an address. Raises ValueError, which says what is wrong with it."""

        def one(name: str) -> str:
            text = query.get(name, "").strip()
            if len(text) > _LONGEST or "\0" in text:
                raise ValueError(f"{name} is longer than anything that it could be")
            return text

        def many(name: str) -> tuple[str, ...]:
            return tuple(dict.fromkeys(text for text in query.getlist(name) if text))

        made = cls(
            having=many("tag"),
            lacking=many("without"),
            process=one("process"),
            state=one("state"),
            prefix=one("prefix"),
            provider_id=one("provider_id"),
            sort=one("sort") or "id",
            after=one("after"),
            before=one("before"),
        )
        made._check()
        return made

    def _check(self) -> None:
        if self.state and self.state not in STATES:
            raise ValueError(f"there is no state {self.state}: {', '.join(STATES)}")
        if self.state == "eligible" and not self.process:
            raise ValueError("eligible for which process? Say its name")
        if self.sort not in ORDERS:
            raise ValueError(f"machines are not sorted by {self.sort}: {', '.join(ORDERS)}")
        if self.prefix and not _PREFIX.fullmatch(self._digits):
            raise ValueError(f"no id begins with {self.prefix}: ids have hexadecimal digits, 32 of them")
        self._place(self.after or self.before)

    def check_tags(self, tags: Tags) -> None:
        """Raises ValueError, which names it, for a tag that the catalogue does not have."""
        for name in (*self.having, *self.lacking):
            if name not in tags.names:
                raise ValueError(f"there is no tag {name}: {', '.join(tags.names) or 'the database has none'}")

    @property
    def _digits(self) -> str:
        return self.prefix.lower().replace("-", "")

    @property
    def query(self) -> dict[str, Any]:
        """The filter as part of an address, without the place where a page begins."""
        return {
            "tag": list(self.having),
            "without": list(self.lacking),
            "process": self.process,
            "state": self.state,
            "prefix": self.prefix,
            "provider_id": self.provider_id,
            "sort": "" if self.sort == "id" else self.sort,
        }

    @property
    def narrows(self) -> bool:
        """Whether it leaves anything out."""
        return any(value for name, value in self.query.items() if name != "sort")

    def statement(self, tags: Tags, limit: int, backlog: str | None = None) -> tuple[str, list[object]]:
        """The statement for at most so many machines, and its parameters; before a place, the nearest come first.

        `backlog` is the one that counts those eligible. Raises ValueError for a tag that there is not.
        """
        created, backwards = self.sort.endswith("created"), bool(self.before)
        place, made = self._place(self.after or self.before)
        sql, names = _core.machines_statement(
            tags.told,
            {
                "having": list(self.having),
                "lacking": list(self.lacking),
                "state": None if backlog else self.state or ("any" if self.process else None),
                "backlog": backlog,
                "process": bool(self.process),
                "bounded": bool(self.prefix),
                "provider": bool(self.provider_id),
                "created": created,
                "descending": self.sort.startswith("-") != backwards,
                "continued": place is not None,
            },
        )
        digits = self._digits
        values: dict[str, object] = {
            "process": self.process,
            "low": UUID(digits.ljust(32, "0")) if digits else None,
            "high": UUID(digits.ljust(32, "f")) if digits else None,
            "provider_id": self.provider_id,
            "after": place,
            "made": made,
            "limit": limit,
        }
        return sql, [values[name] for name in names]

    def place_of(self, machine: UUID, created_at: datetime) -> str:
        """Where a machine stands in this order, as part of an address."""
        return f"{created_at.isoformat()}~{machine}" if self.sort.endswith("created") else str(machine)

    def _place(self, text: str) -> tuple[UUID | None, datetime | None]:
        if not text:
            return None, None
        made, _, machine = text.rpartition("~")
        if bool(made) != self.sort.endswith("created"):
            raise ValueError("the page begins at a place of another order")
        try:
            place = UUID(machine)
        except ValueError:
            raise ValueError("the page begins nowhere: its place cannot be read") from None
        try:
            return place, moment_of(made) if made else None
        except ValueError:
            raise ValueError("the page begins nowhere: its time cannot be read, or has no zone") from None
