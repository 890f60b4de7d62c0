"""Declarations as values: equal, hashable, and on their way to other processes."""

from __future__ import annotations

import copy
import pickle

import pytest

import bmdb

ELIGIBILITY = bmdb.eligible(
    having=("provided",), lacking=("agent_started",), where="machine_provided.provider = $1", params=("Equinix",)
)


@pytest.mark.parametrize("travel", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_an_eligibility_travels(travel: object) -> None:
    assert callable(travel)
    arrived = travel(ELIGIBILITY)
    assert arrived == ELIGIBILITY and hash(arrived) == hash(ELIGIBILITY)
    assert arrived != bmdb.eligible(having=("provided",))
    process = bmdb.Process("A", eligible=ELIGIBILITY, watch=False)
    assert travel(process) == process


def test_a_change_travels() -> None:
    change = pickle.loads(pickle.dumps(bmdb.set_tag("provided", provider_id="x")))
    assert (change.tag, change.values) == ("provided", {"provider_id": "x"})
    assert pickle.loads(pickle.dumps(bmdb.clear_tag("provided"))).values is None


def test_no_value_is_shown() -> None:
    assert "Equinix" not in repr(ELIGIBILITY)
    assert "secret" not in repr(bmdb.set_tag("provided", provider_id="secret"))
