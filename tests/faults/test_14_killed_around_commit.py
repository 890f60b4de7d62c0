"""Rows 14, 15, 16: the connection is killed around COMMIT, before, in or after it.

Promised: no outcome is misreported, whatever was being committed: claims, ends, plain transactions, and those with an
idempotency key. While the server can be reached no doubt is left: `resolve()` answers.

Claims and ends are done once the server can be reached, and so is what has a key, on connections of bmdb's own.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

import bmdb
from tests.faults.ambiguity import Around
from tests.faults.figures import Figure
from tests.proxy import Proxy


def test_no_answer_is_wrong(proxied: bmdb.Connection, database: str, proxy: Proxy, figure: Figure) -> None:
    around = Around(proxied, database, proxy, random.Random(14))
    report = around.run(24)
    around.close()
    figure("wrong answers", len(report.wrong), of=report.rounds)
    figure("unresolved", report.unresolved, of=report.rounds)
    assert report.wrong == []
    assert report.unresolved == 0


@pytest.mark.one_twin
def test_no_answer_is_wrong_on_a_connection_of_psycopg(
    proxied: bmdb.Connection, database: str, proxy: Proxy, figure: Figure
) -> None:
    around: Any = Around(proxied, database, proxy, random.Random(15), theirs=True)
    report = around.run(12)
    around.close()
    figure("wrong answers", len(report.wrong), of=report.rounds)
    assert report.wrong == []
    assert report.unresolved == 0
