"""Python runs queries by name: every name must be registered, and every typed method must be there."""

import inspect
import re
from pathlib import Path

import pytest

from bmdb import _core
from bmdb._async import queries as async_queries
from bmdb._sync import queries as sync_queries

REGISTERED = dict(_core.queries())
SOURCES = {path.name: path for path in sorted(Path(async_queries.__file__).parent.glob("*.py"))}


def test_names_are_unique_and_the_texts_parametrised_by_number() -> None:
    assert len(REGISTERED) == len(_core.queries()) > 40
    for name, text in REGISTERED.items():
        assert re.fullmatch(r"[a-z]+_[a-z_]+", name)
        assert "%s" not in text
        numbers = {int(number) for number in re.findall(r"\$(\d+)", text)}
        assert numbers == set(range(1, len(numbers) + 1)), f"{name} leaves out a parameter"


@pytest.mark.parametrize("source", SOURCES)
def test_every_name_that_python_uses_is_registered(source: str) -> None:
    used = set(re.findall(r'call(?:_count)?_async\(\s*"(\w+)"', SOURCES[source].read_text()))
    assert used <= REGISTERED.keys()


def test_typed_methods_use_a_registered_query_each() -> None:
    # A constraint that an error names is no query.
    used = re.findall(r'(?<!constraint=)"([a-z]+_[a-z_]+)"', SOURCES["queries.py"].read_text())
    assert len(used) == len(set(used)) > 30
    assert set(used) <= REGISTERED.keys()


def test_the_twins_have_the_same_methods_with_the_same_parameters() -> None:
    def methods(cls: type) -> dict[str, list[str]]:
        return {
            name: [f"{parameter.kind}{parameter}" for parameter in inspect.signature(function).parameters.values()]
            for name, function in vars(cls).items()
            if inspect.isfunction(function) and name != "__init__"
        }

    assert methods(async_queries.AsyncQueries) == methods(sync_queries.Queries)
    assert all(
        inspect.iscoroutinefunction(function)
        for name, function in vars(async_queries.AsyncQueries).items()
        if inspect.isfunction(function) and name != "__init__"
    )
