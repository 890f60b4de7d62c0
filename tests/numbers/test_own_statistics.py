"""Statistics of the user's own: their shapes, their labels, and that they keep to themselves."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import psycopg
import pytest

import bmdb
from bmdb.statistics import LONGEST_LABEL, series_of
from tests.conftest import MakeMachines
from tests.numbers.conftest import Scrape

REGIONS = "SELECT provider, count(*) FROM machine_provided GROUP BY provider"


@pytest.fixture
def regions(machines: MakeMachines, sql: psycopg.Connection[Any]) -> None:
    """Two machines in one region, one in another."""
    for provider, machine in zip(("eu", "eu", "us"), machines(3), strict=True):
        sql.execute("INSERT INTO machine_provided VALUES (%s, %s, %s)", [machine, provider, str(machine)])


def by_rows(q: bmdb.Queries) -> Any:
    return q.fetch(REGIONS)


def by_mapping(q: bmdb.Queries) -> Any:
    return {row[0]: row[1] for row in q.fetch(REGIONS)}


async def by_coroutine(q: bmdb.AsyncQueries) -> Any:
    return await q.fetch(REGIONS)


@pytest.mark.usefixtures("regions")
@pytest.mark.parametrize("fn", [by_rows, by_mapping, by_coroutine])
def test_rows_a_mapping_and_an_async_def_will_do(fn: Callable[..., Any], scraped: Scrape) -> None:
    made = bmdb.statistic("region_nodes", labels=("region",), help="Nodes")(fn)
    page = scraped(made).scrape()
    assert (page["bmdb_user_region_nodes", "eu"], page["bmdb_user_region_nodes", "us"]) == (2, 1)


def test_a_number_needs_no_labels(scraped: Scrape) -> None:
    @bmdb.statistic("answer")
    def answer(q: bmdb.Queries) -> Any:
        """The answer.

        And more of it.
        """
        return q.fetch_value("SELECT 1.5::numeric")

    janitor = scraped(answer)
    assert janitor.scrape()["bmdb_user_answer",] == 1.5
    assert "# HELP bmdb_user_answer The answer.\n" in janitor.text()


@pytest.mark.usefixtures("regions")
def test_a_failing_one_loses_itself_only(scraped: Scrape) -> None:
    @bmdb.statistic("wrong")
    def wrong(q: bmdb.Queries) -> Any:
        return q.fetch("SELECT * FROM nowhere")

    @bmdb.statistic("raises")
    async def raises(q: bmdb.AsyncQueries) -> Any:
        raise LookupError("no")

    @bmdb.statistic("forgot_to_return")
    def forgot(q: bmdb.Queries) -> Any:
        q.fetch(REGIONS)

    fine = bmdb.statistic("fine", labels=("region",))(by_rows)
    page = scraped(wrong, raises, forgot, fine).scrape()
    assert page["bmdb_user_fine", "eu"] == 2 and page["bmdb_stats_machines",] == 3
    for name in ("wrong", "raises", "forgot_to_return"):
        assert page["bmdb_statistic_up", "", f"user_{name}"] == 0
        assert not [key for key in page if key[0] == f"bmdb_user_{name}"]


@pytest.mark.usefixtures("regions")
def test_a_label_value_that_vanished_reads_zero(scraped: Scrape, sql: psycopg.Connection[Any]) -> None:
    janitor = scraped(bmdb.statistic("region_nodes", labels=("region",))(by_rows))
    janitor.scrape()
    sql.execute("DELETE FROM machine_provided WHERE provider = 'us'")
    page = janitor.scrape()
    assert (page["bmdb_user_region_nodes", "eu"], page["bmdb_user_region_nodes", "us"]) == (2, 0)


@pytest.mark.parametrize(
    "value", ['a"b\\c\nd', "\u202eevil", "\x1b[31m", "é", "'", "{}", "\ud800", "x" * 5000, None, 7]
)
def test_label_values_from_outside_are_text_and_nothing_else(value: Any, scraped: Scrape) -> None:
    made = bmdb.statistic("hostile", labels=("what",))(lambda q: [(value, 1)])
    page = scraped(made).scrape()
    ((_, shown),) = [key for key in page if key[0] == "bmdb_user_hostile"]
    expected = "" if value is None else str(value).replace("\ud800", "?")[:LONGEST_LABEL]
    assert shown == expected
    assert page["bmdb_stats_machines",] == 0


def test_of_too_many_label_values_the_same_ones_are_kept_and_the_rest_is_counted(scraped: Scrape) -> None:
    offered = [(f"v{number}", number) for number in range(50)]
    made = bmdb.statistic("many", labels=("v",), max_series=10)(lambda q: offered)
    janitor = scraped(made)
    kept = {key for key in janitor.scrape() if key[0] == "bmdb_user_many"}
    assert len(kept) == 10
    offered.reverse()
    page = janitor.scrape()
    assert {key for key in page if key[0] == "bmdb_user_many"} == kept
    assert page["bmdb_statistic_dropped", "", "user_many"] == 40
    # Others come, and those before read 0: still no more than ten.
    offered[:] = [(f"w{number}", 1) for number in range(4)]
    page = janitor.scrape()
    shown = {key[1]: value for key, value in page.items() if key[0] == "bmdb_user_many"}
    assert len(shown) == 10 and sum(shown.values()) == 4


def test_one_runs_after_a_statement_that_took_too_long(scraped: Scrape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bmdb.janitor.STATEMENT_LIMIT", 0.2)
    sleeps = bmdb.statistic("sleeps")(lambda q: q.fetch("SELECT 1 FROM pg_sleep(60)"))
    page = scraped(sleeps).scrape()
    assert page["bmdb_statistic_up", "", "user_sleeps"] == 0
    assert 0.2 <= page["bmdb_statistic_seconds", "", "user_sleeps"] < 10
    assert page["bmdb_stats_machines",] == 0


@pytest.mark.parametrize(
    ("answer", "labels", "expected"),
    [
        (3, 0, {(): 3.0}),
        (Decimal("2.5"), 0, {(): 2.5}),
        ([(4,)], 0, {(): 4.0}),
        ({"a": 1, "b": 2}, 1, {("a",): 1.0, ("b",): 2.0}),
        ({("a", 1): 5}, 2, {("a", "1"): 5.0}),
        ([("a", 1), ("a", 2)], 1, {("a",): 3.0}),
        ([], 1, {}),
    ],
)
def test_shapes(answer: Any, labels: int, expected: Any) -> None:
    assert series_of(answer, labels) == expected


@pytest.mark.parametrize(
    ("answer", "labels"),
    [
        ("3", 0),
        (True, 0),
        (None, 0),
        ([(1, 2)], 0),
        (3, 1),
        ("ab", 1),
        ([("a",)], 1),
        ([("a", "b", 1)], 1),
        ({"a": "1"}, 1),
    ],
)
def test_other_shapes_are_refused(answer: Any, labels: int) -> None:
    with pytest.raises(TypeError):
        series_of(answer, labels)


@pytest.mark.parametrize(
    ("name", "labels"),
    [("", ()), ("Upper", ()), ("a-b", ()), ("a_total", ()), ("a_bucket", ()), ("9a", ()), ("a\n", ()),
     ("a", ("a-b",)), ("a", ("__name__",)), ("a", ("x", "x")), ("a", tuple("abcdefghi"))],
)  # fmt: skip
def test_names_that_prometheus_would_not_take_are_refused(name: str, labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="label|name"):
        bmdb.statistic(name, labels=labels)


def test_what_is_no_function_of_a_statistic_is_refused() -> None:
    def generates(q: Any) -> Any:
        yield 1

    with pytest.raises(TypeError, match="generator"):
        bmdb.statistic("a")(generates)
    with pytest.raises(TypeError, match="labels are several"):
        bmdb.statistic("a", labels="region")
    with pytest.raises(ValueError, match="max_series"):
        bmdb.statistic("a", max_series=0)


def test_two_of_one_name_are_refused(scraped: Scrape) -> None:
    made = [bmdb.statistic("twice")(lambda q: 1) for _ in range(2)]
    with pytest.raises(ValueError, match="two statistics are named 'twice'"):
        scraped(*made)
