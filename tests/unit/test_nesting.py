"""The mark that a transaction is running, which must not outlive it, whatever interrupts the thread."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextvars import copy_context

import pytest

import bmdb
from bmdb._core import Nesting


class Owner:
    """Stands for a connection."""


class Alarm:
    """Interrupts the thread, as Ctrl-C does, while it is armed."""

    def __init__(self) -> None:
        self.armed = False
        self._before = signal.signal(signal.SIGALRM, self._ring)

    def _ring(self, *_: object) -> None:
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt

    def close(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    ringing = Alarm()
    yield ringing
    ringing.close()


def test_one_inside_another_is_refused_for_the_same_owner_alone() -> None:
    owner, other = Owner(), Owner()
    with Nesting(owner), Nesting(other):
        with pytest.raises(bmdb.WorkStateError, match="inside another one's callback"):
            Nesting(owner).__enter__()
        with pytest.raises(bmdb.WorkStateError), Nesting(other):
            pass
    with Nesting(owner), Nesting(other):
        pass


def test_it_ends_with_the_block_that_raises() -> None:
    owner = Owner()
    with pytest.raises(ZeroDivisionError), Nesting(owner):
        _ = 1 / 0
    with Nesting(owner):
        pass


def test_a_context_copied_meanwhile_is_free_once_the_transaction_is_over() -> None:
    owner = Owner()
    with Nesting(owner):
        copied = copy_context()
        with pytest.raises(bmdb.WorkStateError):
            copied.run(Nesting(owner).__enter__)
    copied.run(Nesting(owner).__enter__)


def test_an_interrupt_at_any_moment_leaves_no_mark(alarm: Alarm) -> None:
    owner, interrupts = Owner(), 0
    randomness = random.Random(1)
    for _ in range(3_000):
        try:
            alarm.armed = True
            signal.setitimer(signal.ITIMER_REAL, randomness.uniform(1e-6, 60e-6))
            for _ in range(60):
                with Nesting(owner):
                    pass
            alarm.armed = False
        except KeyboardInterrupt:
            interrupts += 1
    assert interrupts > 100
    with Nesting(owner):
        pass
