"""Any address, any query and any form get an answer that is no mistake of ours."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote, urlencode

import hypothesis
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Route

import bmdb
from bmdb.web import app
from bmdb.web.actions import PERIODS
from tests.conftest import MakeMachines
from tests.web.client import TOKEN, Client, form_token
from tests.web.fleet import HOSTILE, HOSTILE_PROCESS

EXAMPLES = 80
NAMES = "after before again panel said state tag without prefix provider_id process sort value next since token"
SETTINGS = hypothesis.settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
)
STRANGE = st.one_of(
    st.text(max_size=40),
    st.sampled_from([HOSTILE, HOSTILE_PROCESS, "", "0", "-1", "9" * 30, "1e999", "NaN", "\0", "a\0b", "\ud7ff", "%00"]),
    st.sampled_from(
        ["../../etc/passwd", "' OR 1=1 --", "{{7*7}}", "2026-01-01T00:00:00+00:00", "0001-01-01", "T", "~"]
    ),
)


@pytest.fixture
def known(database: str, machines: MakeMachines, sql: psycopg.Connection[Any]) -> list[str]:
    """What there is, and what people called it: ids and names that lead on."""
    offered = machines(3)
    with bmdb.connect(database, component=HOSTILE) as connection, connection.start_session() as session:
        session.work(HOSTILE_PROCESS, lambda q: offered[:1]).fail(HOSTILE, bmdb.Backoff(600))
        session.work("build", lambda q: offered[1:2]).finish()
        sql.execute("INSERT INTO machine_provided VALUES (%s, 'p', %s)", [offered[2], HOSTILE])
        return [*map(str, offered), str(session.uuid), HOSTILE_PROCESS, "build", "provided", "p"]


def address(draw: st.DrawFn, route: Route, values: st.SearchStrategy[str]) -> str:
    """The route's path, with anything in its gaps."""
    path = route.path
    for name, convertor in route.param_convertors.items():
        kind = type(convertor).__name__.removesuffix("Convertor").lower()
        for gap in (f"{{{name}}}", f"{{{name}:{kind}}}"):
            path = path.replace(gap, quote(draw(values).encode("utf-8", "replace"), safe=""))
    return path


def query(draw: st.DrawFn, values: st.SearchStrategy[str]) -> list[tuple[str, str]]:
    """A few pairs, some of which the pages know."""
    names = st.one_of(st.sampled_from(NAMES.split()), st.text(max_size=5))
    return draw(st.lists(st.tuples(names, values), max_size=4))


def encoded(pairs: list[tuple[str, str]]) -> str:
    return urlencode(pairs, encoding="utf-8", errors="replace")


def test_any_address_is_answered(database: str, known: list[str]) -> None:
    made = app(database, refresh=1e-6)
    routes = [route for route in made.routes if isinstance(route, Route) and "GET" in (route.methods or ())]
    values = st.one_of(STRANGE, st.sampled_from(known))
    statuses: set[int] = set()

    @st.composite
    def requests(draw: st.DrawFn) -> str:
        return f"{address(draw, draw(st.sampled_from(routes)), values)}?{encoded(query(draw, values))}"

    with asyncio.Runner() as runner:
        client = Client(made)

        @SETTINGS
        @given(requests())
        def probe(wanted: str) -> None:
            answer = runner.run(client.get(wanted))
            statuses.add(answer.status_code)
            assert answer.status_code < 500, f"{wanted}: {answer.text[:500]}"
            assert "<script>window" not in answer.text

        probe()
        runner.run(client.http.aclose())
        runner.run(made.state.site.close())
    assert {200, 404} <= statuses


def test_any_form_is_answered(database: str, known: list[str]) -> None:
    made = app(database, allow_actions=True, token=TOKEN, refresh=1e-6)
    routes = [route for route in made.routes if isinstance(route, Route) and "POST" in (route.methods or ())]
    routes = [route for route in routes if route.name not in ("log_in", "log_out")]
    values = st.one_of(STRANGE, st.sampled_from(known))
    statuses: set[int] = set()
    # A form that might be meant, but for some of its fields.
    meant = {"process": "build", "reason": "why not", "period": next(iter(PERIODS)), "sure": "yes"}
    fields = st.sampled_from([*meant, "since", "token", "again"])

    @st.composite
    def requests(draw: st.DrawFn) -> tuple[str, dict[str, str]]:
        form = meant | draw(st.dictionaries(fields, st.one_of(values, st.sampled_from(list(PERIODS))), max_size=3))
        return address(draw, draw(st.sampled_from(routes)), st.one_of(st.sampled_from(known[:3]), values)), form

    with asyncio.Runner() as runner:
        client = Client(made)
        runner.run(client.log_in())
        csrf = form_token(runner.run(client.get(f"/machines/{known[0]}")))

        @SETTINGS
        @given(requests())
        def probe(request: tuple[str, dict[str, str]]) -> None:
            path, form = request
            sent = {name: value.encode("utf-8", "replace").decode() for name, value in form.items()}
            answer = runner.run(client.post(path, {**sent, "csrf": csrf}))
            statuses.add(answer.status_code)
            assert answer.status_code < 500, f"{path} {form}: {answer.text[:500]}"

        probe()
        runner.run(client.http.aclose())
        runner.run(made.state.site.close())
    assert statuses & {200, 303}
