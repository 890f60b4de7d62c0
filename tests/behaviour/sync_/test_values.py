# Generated from tests/behaviour/async_/test_values.py by tools/generate_sync.py: do not edit.
"""Python values to SQL and back, on a real server, type by type.

On bmdb's own connections alone: on a psycopg connection parameters go through psycopg's adaptation.
"""

import copy
import enum
import json
import math
import pickle
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
)
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.database import Server

import bmdb

Ask = Callable[..., Any]

INT8_MAX = 2**63 - 1
ID = UUID("00112233-4455-6677-8899-aabbccddeeff")
PAST_ANY_CALENDAR = "10000-01-01"

TYPES_OF_OUR_OWN = """
CREATE TYPE mood AS ENUM ('glad', 'so so', 'müde');
CREATE DOMAIN year AS int2 CHECK (VALUE > 1900);
CREATE DOMAIN pair AS int4[] CHECK (cardinality(VALUE) = 2);
CREATE TYPE spot AS (x int4, y int4);
"""


@pytest.fixture(scope="module")
def session(server: Server, template: str) -> Iterator[bmdb.Session]:
    """One session for all tests here: they only ask."""
    with server.temporary_database(template) as database:
        with (
            bmdb.connect(database, component="test") as connection,
            connection.start_session(interval=5.0) as started,
        ):
            for statement in TYPES_OF_OUR_OWN.strip().splitlines():
                started.transact(lambda q, statement=statement: q.execute(statement))
            yield started


@pytest.fixture(scope="module")
def ask(session: bmdb.Session) -> Ask:
    """The single value that a query gives."""
    return lambda sql, *params: session.transact(lambda q: q.fetch_value(sql, *params))


@pytest.fixture(scope="module")
def ask_row(session: bmdb.Session) -> Ask:
    """The single row that a query gives."""
    return lambda sql, *params: session.transact(lambda q: q.fetch_one(sql, *params))


# Type, its text in SQL, and the Python value for it. The text keeps the two directions honest: reading is compared
# with what the server makes of it, and so is writing.
BOTH_WAYS: list[tuple[str, str, object]] = [
    ("bool", "true", True),
    ("bool", "false", False),
    ("int2", "-32768", -32768),
    ("int2", "32767", 32767),
    ("int4", "-2147483648", -(2**31)),
    ("int4", "2147483647", 2**31 - 1),
    ("int8", "-9223372036854775808", -(2**63)),
    ("int8", "9223372036854775807", INT8_MAX),
    ("oid", "4294967295", 2**32 - 1),
    ("float4", "1.5", 1.5),
    ("float4", "-Infinity", -math.inf),
    ("float4", "3.4028235e38", 3.4028234663852886e38),
    ("float8", "0.1", 0.1),
    ("float8", "1.7976931348623157e308", sys.float_info.max),
    ("float8", "5e-324", 5e-324),
    ("float8", "NaN", math.nan),
    ("float8", "Infinity", math.inf),
    ("numeric", "0", Decimal(0)),
    ("numeric", "0.00", Decimal("0.00")),
    ("numeric", "-1.50", Decimal("-1.50")),
    ("numeric", "10000", Decimal(10000)),
    ("numeric", "0.00001", Decimal("0.00001")),
    ("numeric", "12345678901234567890123456789.0987654321", Decimal("12345678901234567890123456789.0987654321")),
    ("numeric", "100000", Decimal("100000")),
    ("numeric", "NaN", Decimal("NaN")),
    ("numeric", "Infinity", Decimal("Infinity")),
    ("numeric", "-Infinity", Decimal("-Infinity")),
    ("text", "", ""),
    ("text", "naïve 🦀 ''quoted'' \\ text", "naïve 🦀 'quoted' \\ text"),
    ("varchar", "abc", "abc"),
    ("bpchar", "abc", "abc"),
    ("name", "pg_class", "pg_class"),
    ('"char"', "r", "r"),
    ('"char"', "", ""),
    ("bytea", "\\x", b""),
    ("bytea", "\\x00ff10", b"\x00\xff\x10"),
    ("uuid", str(ID), ID),
    ("uuid", "ffffffff-ffff-ffff-ffff-ffffffffffff", UUID(int=2**128 - 1)),
    ("date", "0001-01-01", date.min),
    ("date", "2000-02-29", date(2000, 2, 29)),
    ("date", "1999-12-31", date(1999, 12, 31)),
    ("date", "9999-12-31", date.max),
    ("time", "00:00", time.min),
    ("time", "23:59:59.999999", time.max),
    ("timestamp", "0001-01-01 00:00", datetime.min),
    ("timestamp", "1999-12-31 23:59:59.999999", datetime(1999, 12, 31, 23, 59, 59, 999999)),
    ("timestamp", "9999-12-31 23:59:59.999999", datetime.max),
    ("timestamptz", "0001-01-01 00:00+00", datetime.min.replace(tzinfo=UTC)),
    ("timestamptz", "2024-02-29 12:30:15.123456+00", datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC)),
    ("timestamptz", "9999-12-31 23:59:59.999999+00", datetime.max.replace(tzinfo=UTC)),
    ("interval", "0", timedelta()),
    ("interval", "1 day 02:03:04.000005", timedelta(days=1, hours=2, minutes=3, seconds=4, microseconds=5)),
    ("interval", "-00:00:00.000001", timedelta(microseconds=-1)),
    ("interval", "-3 days -12:00", timedelta(days=-3, hours=-12)),
    ("json", '{"a": [1, 2.5, null, true, "é\\u0000\\""]}', {"a": [1, 2.5, None, True, 'é\0"']}),
    ("jsonb", '{"a": [1, 2.5, null, true, "é\\""], "b": {}}', {"a": [1, 2.5, None, True, 'é"'], "b": {}}),
    ("jsonb", '"text"', "text"),
    ("jsonb", "[]", []),
    ("jsonb", "18446744073709551616", 2**64),
    ("jsonb", "false", False),
    ("inet", "192.0.2.1", IPv4Address("192.0.2.1")),
    ("inet", "192.0.2.1/24", IPv4Interface("192.0.2.1/24")),
    ("inet", "0.0.0.0/0", IPv4Interface("0.0.0.0/0")),
    ("inet", "2001:db8::1", IPv6Address("2001:db8::1")),
    ("inet", "2001:db8::1/64", IPv6Interface("2001:db8::1/64")),
    ("cidr", "192.0.2.0/24", IPv4Network("192.0.2.0/24")),
    ("cidr", "192.0.2.1/32", IPv4Network("192.0.2.1/32")),
    ("cidr", "2001:db8::/32", IPv6Network("2001:db8::/32")),
    ("cidr", "::/0", IPv6Network("::/0")),
    ("mood", "müde", "müde"),
    ("year", "2024", 2024),
]

each_type = pytest.mark.parametrize(("sql_type", "text", "value"), BOTH_WAYS, ids=lambda value: str(value)[:40])


def literal(sql_type: str, text: str) -> str:
    return f"'{text}'::{sql_type}"


def same(left: object, right: object) -> bool:
    """Equal, of the same type, with the same digits; NaN is itself."""
    return type(left) is type(right) and (left == right or left != left) and repr(left) == repr(right)


class TestBothWays:
    @each_type
    def test_reads(self, ask: Ask, sql_type: str, text: str, value: object) -> None:
        assert same(ask(f"SELECT {literal(sql_type, text)}"), value)

    @each_type
    def test_writes(self, ask: Ask, sql_type: str, text: str, value: object) -> None:
        if sql_type == "json":  # which has no equality
            assert json.loads(ask("SELECT $1::json::text", value)) == value
        else:
            assert ask(f"SELECT $1::{sql_type} IS NOT DISTINCT FROM {literal(sql_type, text)}", value) is True

    @each_type
    def test_in_arrays(self, ask: Ask, sql_type: str, text: str, value: object) -> None:
        read = ask(f"SELECT ARRAY[[{literal(sql_type, text)}], [NULL::{sql_type}]]")
        assert same(read[0][0], value)
        assert read[1] == [None]
        written = ask(f"SELECT $1::{sql_type}[]", [value, None])
        assert same(written[0], value)
        assert written[1:] == [None]

    @pytest.mark.parametrize("sql_type", sorted({sql_type for sql_type, _, _ in BOTH_WAYS} | {"point", "int4[]"}))
    def test_null(self, ask: Ask, sql_type: str) -> None:
        assert ask(f"SELECT NULL::{sql_type}") is None
        assert ask(f"SELECT $1::{sql_type}", None) is None

    def test_void_is_none(self, ask: Ask) -> None:
        assert ask("SELECT pg_sleep(0)") is None

    def test_untyped_literal(self, ask: Ask) -> None:
        assert ask("SELECT 'abc'") == "abc"


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Mood(enum.StrEnum):
    GLAD = "glad"


class Loud(int):
    def __repr__(self) -> str:
        return "LOUD"


class TestFurtherParameters:
    @pytest.mark.parametrize(
        ("sql_type", "passed", "read"),
        [
            ("text", Colour.RED, "red"),
            ("int4", Level.HIGH, 3),
            ("mood", Mood.GLAD, "glad"),
            ("int8", Loud(5), 5),
            ("numeric", Loud(2**70), Decimal(2**70)),
            ("numeric", 7, Decimal(7)),
            ("numeric", -(10**40), Decimal(-(10**40))),
            ("numeric", 0.1, Decimal("0.1")),
            ("numeric", 1e300, Decimal(10**300)),
            ("numeric", Decimal("1E+5"), Decimal(100000)),
            ("numeric", Decimal("-0"), Decimal(0)),
            ("numeric", Decimal("1E-16383"), Decimal("1E-16383")),
            ("float8", 2**53, float(2**53)),
            ("float8", -(2**63), float(-(2**63))),
            ("float4", 2**24, float(2**24)),
            ("float4", 0.1, 0.10000000149011612),
            ("bytea", bytearray(b"ab"), b"ab"),
            ("bytea", memoryview(b"abcd")[::2], b"ac"),
            ("uuid", str(ID), ID),
            ("uuid", ID.hex, ID),
            ("inet", "192.0.2.7", IPv4Address("192.0.2.7")),
            ("inet", "2001:db8::1/64", IPv6Interface("2001:db8::1/64")),
            ("inet", IPv4Network("192.0.2.0/24"), IPv4Interface("192.0.2.0/24")),
            ("cidr", IPv4Address("192.0.2.7"), IPv4Network("192.0.2.7/32")),
            ("cidr", "10.0.0.0/8", IPv4Network("10.0.0.0/8")),
            (
                "timestamptz",
                datetime(2024, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=5, minutes=45, microseconds=1))),
                datetime(2023, 12, 31, 18, 44, 59, 999999, tzinfo=UTC),
            ),
            ("jsonb", (1, Decimal("1.50"), {"deep": Colour.RED}), [1, 1.5, {"deep": "red"}]),
            ("json", Decimal("1E+2"), 100.0),
            ("jsonb[]", [[1], None, {"a": None}], [[1], None, {"a": None}]),
            ("int4[]", (), []),
            ("int4[]", [[], []], []),
            ("int4[]", [[[1, None], [3, 4]]], [[[1, None], [3, 4]]]),
            ("uuid[]", [str(ID), ID], [ID, ID]),
            ("mood[]", ["glad", None, Mood.GLAD], ["glad", None, "glad"]),
            ("pair", [1, 2], [1, 2]),
            ("pair[]", [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        ],
    )
    def test_is_taken(self, ask: Ask, sql_type: str, passed: object, read: object) -> None:
        assert same(ask(f"SELECT $1::{sql_type}", passed), read)

    def test_interval_days_are_24_hours(self, ask: Ask) -> None:
        assert ask("SELECT $1::interval::text", timedelta(days=2)) == "48:00:00"

    def test_longest_numeric(self, ask: Ask) -> None:
        digits = "123456789" * 14563
        longest = Decimal(f"{digits}.{digits[:16383]}")
        assert ask("SELECT $1::numeric", longest) == longest

    def test_largest_interval(self, ask: Ask) -> None:
        largest = timedelta(microseconds=INT8_MAX)
        assert ask("SELECT $1::interval", largest) == largest

    def test_array_as_a_set(self, ask: Ask) -> None:
        ids = [UUID(int=number) for number in range(500)]
        assert ask("SELECT count(*) FROM unnest($1::uuid[]) AS t(id) WHERE id = ANY($2)", ids, ids[::2]) == 250

    def test_array_bounds_are_dropped(self, ask: Ask) -> None:
        assert ask("SELECT '[5:6]={1,2}'::int4[]") == [1, 2]


class Unknown:
    pass


class TestRefusedParameters:
    @pytest.mark.parametrize(
        ("sql_type", "passed", "words"),
        [
            ("int4", 1.0, "float does not fit type int4: pass an int"),
            ("int4", 1.5, "float does not fit type int4"),
            ("int4", True, "bool does not fit type int4"),
            ("int4", Decimal(1), "Decimal does not fit type int4"),
            ("int4", "1", r"str does not fit type int4.*\$1::text::int4"),
            ("int4", [1], "list does not fit type int4"),
            ("bool", 1, "int does not fit type bool: pass a bool"),
            ("float8", Decimal("1.5"), "Decimal does not fit type float8"),
            ("text", 1, "int does not fit type text: pass a str"),
            ("text", ID, "UUID does not fit type text"),
            ("text", b"a", "bytes does not fit type text"),
            ("bytea", "a", "str does not fit type bytea: pass bytes"),
            ("date", datetime(2024, 1, 1), "datetime without a zone does not fit type date"),
            ("date", "2024-01-01", r"\$1::text::date"),
            ("timestamp", date(2024, 1, 1), "date does not fit type timestamp"),
            ("timestamp", datetime(2024, 1, 1, tzinfo=UTC), "datetime with a zone does not fit type timestamp"),
            ("timestamptz", datetime(2024, 1, 1), "datetime without a zone does not fit type timestamptz"),
            ("time", time(1, tzinfo=UTC), "zone does not fit type time"),
            ("interval", 5, "pass a timedelta"),
            ("uuid", 5, "pass a UUID"),
            ("inet", 5, "pass an IP address"),
            ("int4[]", 5, r"int4\[\]: pass a list"),
            ("int4[]", {"a": 1}, r"dict does not fit type int4\[\]"),
            ("int4[]", ["1"], "str does not fit type int4"),
            ("jsonb", ID, r"UUID does not fit type json: pass its text, str"),
            ("jsonb", {"when": date.min}, "date does not fit type json"),
            ("jsonb", {1: 2}, "key of type int.*must be str"),
            ("mood", 1, "int does not fit type mood"),
            ("point", "(1,2)", r"type point.*\$1::text::point"),
            ("spot", (1, 2), "type spot"),
            ("text", Unknown(), "Unknown fits no SQL type"),
            ("text", {1, 2}, "set fits no SQL type"),
            ("text", object, "type fits no SQL type"),
            ("text", 1j, "complex fits no SQL type"),
        ],
    )
    def test_wrong_kind(self, ask: Ask, sql_type: str, passed: object, words: str) -> None:
        with pytest.raises(TypeError, match=words):
            ask(f"SELECT $1::{sql_type}", passed)

    @pytest.mark.parametrize(
        ("sql_type", "passed", "words"),
        [
            ("int2", 32768, "32768 does not fit type int2"),
            ("int2", -32769, "int2"),
            ("int4", 2**31, "int4"),
            ("int8", 2**63, "int8"),
            ("int8", -(2**63) - 1, "int8"),
            ("oid", -1, "oid"),
            ("year", 2**15, "year"),
            ("float8", 2**53 + 1, r"float8 exactly: pass float"),
            ("float8", INT8_MAX, "float8 exactly"),
            ("float8", 2**64, "float8 exactly"),
            ("float4", 2**24 + 1, "float4 exactly"),
            ("float4", 1e39, "float4"),
            ("float4", 1e-60, "float4"),
            ("numeric", Decimal("1E+131072"), "numeric"),
            ("numeric", Decimal("1E-16384"), "numeric"),
            ("numeric", Decimal("1E+999999"), "numeric"),
            ("numeric", Decimal("sNaN"), "numeric"),
            ("text", "a\0b", "NUL character does not fit type text"),
            ("mood", "\0", "NUL"),
            ("text", "\ud800", "lone surrogate does not fit type text"),
            ('"char"', "é", "one ASCII character"),
            ("uuid", "not one", "no UUID"),
            ("inet", "999.0.0.1", "no IP address does not fit type inet"),
            ("inet", "10.0.0.0/33", "inet"),
            ("inet", IPv6Address("fe80::1%eth0"), "zone"),
            ("cidr", IPv4Interface("192.0.2.1/24"), "cidr"),
            ("cidr", "192.0.2.1/24", "cidr"),
            ("timestamptz", datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), "timestamptz"),
            ("timestamptz", datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), "timestamptz"),
            ("interval", timedelta.max, "interval"),
            ("interval", timedelta(microseconds=-(2**63) - 1), "interval"),
            ("json", math.nan, "type json"),
            ("jsonb", [math.inf], "type json"),
            ("jsonb", Decimal("NaN"), "type json"),
            ("jsonb", {"a": "\0"}, "NUL character does not fit type jsonb"),
            ("int4[]", [[1], [1, 2]], "ragged"),
            ("int4[]", [1, [2]], "ragged"),
            ("int4[]", [None, [2]], "ragged"),
            ("int4[]", [[[[[[[1]]]]]]], "6 dimensions"),
            ("int2[]", [1, 70000], "70000 does not fit type int2"),
        ],
    )
    def test_out_of_range(self, ask: Ask, sql_type: str, passed: object, words: str) -> None:
        with pytest.raises(ValueError, match=words):
            ask(f"SELECT $1::{sql_type}", passed)

    def test_a_list_that_contains_itself(self, ask: Ask) -> None:
        endless: list[object] = []
        endless.append(endless)
        with pytest.raises(ValueError, match="contain itself"):
            ask("SELECT $1::jsonb", endless)

    def test_the_session_goes_on(self, ask: Ask) -> None:
        with pytest.raises(ValueError, match="int2"):
            ask("SELECT $1::int2", 70000)
        assert ask("SELECT $1::int2", 7) == 7

    def test_a_caught_refusal_leaves_the_transaction_usable(self, session: bmdb.Session) -> None:
        def refuse_then_ask(q: Any) -> object:
            with pytest.raises(TypeError):
                q.fetch_value("SELECT $1::int2", "7")
            return q.fetch_value("SELECT $1::int2", 7)

        assert session.transact(refuse_then_ask) == 7

    def test_an_unknown_label_is_the_servers_to_refuse(self, ask: Ask) -> None:
        with pytest.raises(bmdb.DatabaseError) as caught:
            ask("SELECT $1::mood", "grim")
        assert caught.value.sqlstate == "22P02"


class TestRefusedColumns:
    @pytest.mark.parametrize(
        ("expression", "words"),
        [
            ("point(1, 2)", r"column \"it\".*type point.*::text"),
            ("ARRAY[point(1, 2)]", "type point"),
            ("'12:00+02'::timetz", "type timetz.*::text"),
            ("12::money", "type money.*::numeric"),
            ("int4range(1, 2)", r"type int4range.*lower"),
            ("ROW(1, 2)::spot", "type spot.*to_jsonb"),
            ("ROW(1, 2)", "type record.*to_jsonb"),
            ("'a'::tsvector", "type tsvector.*::text"),
            ("'08:00:2b:01:02:03'::macaddr", "type macaddr.*::text"),
            ("B'101'", "type bit.*::text"),
        ],
    )
    def test_type_without_a_python_value(self, ask: Ask, expression: str, words: str) -> None:
        with pytest.raises(TypeError, match=words):
            ask(f"SELECT {expression} AS it")

    @pytest.mark.parametrize(
        ("expression", "words"),
        [
            ("'infinity'::date", "infinity of type date.*::text"),
            (f"'{PAST_ANY_CALENDAR}'::date", "years 1 to 9999 of type date"),
            ("'0044-03-15 BC'::date", "type date"),
            ("'-infinity'::timestamp", "infinity of type timestamp"),
            (f"'{PAST_ANY_CALENDAR} 00:00'::timestamp", "type timestamp"),
            ("'infinity'::timestamptz", "infinity of type timestamptz"),
            (f"'{PAST_ANY_CALENDAR} 00:00+00'::timestamptz", "type timestamptz"),
            ("'0001-01-01 00:00+00'::timestamptz - '1 second'::interval", "type timestamptz"),
            ("'24:00'::time", "24:00.*::text"),
            ("'1 month'::interval", r"months.*extract\(epoch"),
            ("'1 year -1 day'::interval", "months"),
            ("'1000000000 days'::interval", "999,999,999 days"),
            ("ARRAY['infinity'::date]", "infinity of type date"),
        ],
    )
    def test_value_without_a_python_value(self, ask: Ask, expression: str, words: str) -> None:
        with pytest.raises(ValueError, match=words):
            ask(f"SELECT {expression} AS it")

    def test_the_casts_named_do_help(self, ask: Ask) -> None:
        assert ask("SELECT point(1, 2)::text") == "(1,2)"
        assert ask("SELECT to_jsonb(ROW(1, 2)::spot)") == {"x": 1, "y": 2}
        assert ask("SELECT 12::money::numeric") == Decimal(12)
        assert ask("SELECT upper(int4range(1, 2))") == 2
        assert ask("SELECT extract(epoch FROM '1 month'::interval)") == Decimal("2592000")
        assert ask("SELECT $1::text::point::text", "(1,2)") == "(1,2)"


class TestRow:
    def test_columns_by_name_and_position(self, ask_row: Ask) -> None:
        row = ask_row("SELECT 1 AS a, 'two' AS b, NULL AS c")
        assert (row.a, row.b, row.c) == (1, "two", None)
        assert (row[0], row[-2], row["b"], row[1:]) == (1, "two", "two", ("two", None))
        assert (len(row), list(row), row._fields) == (3, [1, "two", None], ("a", "b", "c"))
        assert row._asdict() == {"a": 1, "b": "two", "c": None}
        assert repr(row) == "Row(a=1, b='two', c=None)"
        assert "two" in row
        assert 5 not in row
        assert {"a", "b", "c", "_fields"} <= set(dir(row))

    def test_is_a_value(self, ask_row: Ask) -> None:
        row, twin, other = [ask_row("SELECT $1::int4 AS a, 'x' AS b", number) for number in (1, 1, 2)]
        assert row == twin
        assert row == (1, "x")
        assert hash(row) == hash(twin) == hash((1, "x"))
        assert row != other
        assert row != [1, "x"]

    def test_is_frozen(self, ask_row: Ask) -> None:
        row = ask_row("SELECT 1 AS a")
        with pytest.raises(AttributeError):
            row.a = 2
        with pytest.raises(TypeError):
            row[0] = 2

    def test_what_is_not_there(self, ask_row: Ask) -> None:
        row = ask_row("SELECT 1 AS first, 2 AS second")
        with pytest.raises(AttributeError, match='no column "third", only: first, second'):
            _ = row.third
        with pytest.raises(KeyError, match="third"):
            _ = row["third"]
        with pytest.raises(IndexError):
            _ = row[2]
        with pytest.raises(TypeError, match="not float"):
            _ = row[0.5]

    def test_a_name_that_occurs_twice(self, ask_row: Ask) -> None:
        row = ask_row("SELECT 1 AS a, 2 AS a")
        assert tuple(row) == (1, 2)
        with pytest.raises(AttributeError, match="more than one column"):
            _ = row.a
        with pytest.raises(ValueError, match="more than one column"):
            row._asdict()

    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda row: pickle.loads(pickle.dumps(row))])
    def test_copies(self, ask_row: Ask, copied: Callable[[Any], Any]) -> None:
        row = ask_row("SELECT $1::uuid AS machine_id, ARRAY[1, 2] AS list", ID)
        twin = copied(row)
        assert twin == row
        assert twin.machine_id == ID
        assert type(twin) is type(row)


def test_a_uuid_is_one_in_every_way(ask: Ask) -> None:
    value = ask("SELECT $1::uuid", ID)
    assert type(value) is UUID
    assert (value.int, value.is_safe, hash(value), repr(value)) == (ID.int, ID.is_safe, hash(ID), repr(ID))
    assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == ID
    with pytest.raises(TypeError, match="immutable"):
        value.int = 0


few = settings(max_examples=40, derandomize=True, deadline=None)
finite = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
scalar = st.none() | st.booleans() | st.integers() | finite | text
documents = st.recursive(scalar, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=8)


class TestRoundTrips:
    @given(value=st.integers(-(2**63), INT8_MAX))
    @few
    def test_int8(self, ask: Ask, value: int) -> None:
        assert ask("SELECT $1::int8::text", value) == str(value)
        assert ask("SELECT $1::int8", value) == value

    @given(value=st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**60), max_value=10**60))
    @few
    def test_numeric(self, ask: Ask, value: Decimal) -> None:
        assert ask("SELECT $1::numeric", value) == value
        assert Decimal(ask("SELECT $1::numeric::text", value)) == value

    @given(value=finite)
    @few
    def test_float8(self, ask: Ask, value: float) -> None:
        assert float(ask("SELECT $1::float8::text", value)) == value
        assert ask("SELECT $1::float8", value).hex() == value.hex()

    @given(values=st.lists(text | st.none()))
    @few
    def test_text_array(self, ask: Ask, values: list[str | None]) -> None:
        assert ask("SELECT $1::text[]", values) == values
        assert ask("SELECT to_json($1::text[])", values) == values

    @given(value=st.datetimes())
    @few
    def test_timestamp(self, ask: Ask, value: datetime) -> None:
        assert ask("SELECT $1::timestamp", value) == value
        assert datetime.fromisoformat(ask("SELECT to_json($1::timestamp)", value)) == value

    @given(value=st.datetimes(timezones=st.timezones(), min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1)))
    @few
    def test_timestamptz(self, ask: Ask, value: datetime) -> None:
        read = ask("SELECT $1::timestamptz", value)
        assert (read, read.tzinfo) == (value.astimezone(UTC), UTC)

    @given(value=st.timedeltas(timedelta(days=-(10**8)), timedelta(days=10**8)))
    @few
    def test_interval(self, ask: Ask, value: timedelta) -> None:
        assert ask("SELECT $1::interval", value) == value
        assert (ask("SELECT extract(epoch FROM $1::interval)", value)) * 10**6 == value // timedelta(microseconds=1)

    @given(value=st.ip_addresses())
    @few
    def test_inet(self, ask: Ask, value: IPv4Address | IPv6Address) -> None:
        assert ask("SELECT $1::inet", value) == value
        assert ip_address(ask("SELECT host($1::inet)", value)) == value

    @given(value=documents)
    @few
    def test_json(self, ask: Ask, value: object) -> None:
        assert ask("SELECT $1::json", value) == value
