"""When the instances of a loop look: in virtual time, without a database."""

from __future__ import annotations

import pytest

from bmdb.loops.idle import FIRST_PAUSE, LONGEST_TROUBLE, Idle


class Clock:
    """A time that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The time."""
    return Clock()


@pytest.fixture
def idle(clock: Clock) -> Idle:
    """Up to five seconds between looks, nothing taken off by chance."""
    return Idle(5.0, clock=clock, chance=lambda: 0.0)


def looks_within(idle: Idle, clock: Clock, seconds: float) -> int:
    """How often an instance looks in vain that asks as soon as it may."""
    end, count = clock.now + seconds, 0
    while clock.now < end:
        if wait := idle.turn():
            clock.now += wait
        else:
            count += 1
            idle.nothing()
    return count


def test_pauses_double_up_to_the_longest(idle: Idle, clock: Clock) -> None:
    pauses = []
    for _ in range(8):
        assert idle.turn() == 0.0
        idle.nothing()
        pauses.append(idle.turn())
        clock.now += pauses[-1]
    assert pauses == pytest.approx([0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0])
    assert FIRST_PAUSE == 0.25


def test_an_hour_of_idleness_costs_one_look_each_longest_pause(idle: Idle, clock: Clock) -> None:
    assert 720 <= looks_within(idle, clock, 3600.0) <= 726


def test_after_a_look_in_vain_only_one_looks_at_a_time(idle: Idle, clock: Clock) -> None:
    # While there is work everybody looks.
    assert [idle.turn() for _ in range(4)] == [0.0] * 4
    for _ in range(4):
        idle.nothing()
    assert idle.vain == 1, "instances that looked together count as one"
    clock.now += 0.25
    assert idle.turn() == 0.0
    assert idle.turn() > 0.0, "another one looks"
    idle.nothing()
    assert idle.turn() == pytest.approx(0.5)


def test_work_found_lets_everybody_look_again(idle: Idle, clock: Clock) -> None:
    idle.nothing()
    clock.now += 0.25
    assert idle.turn() == 0.0
    assert idle.found() is True, "those who wait are to be told"
    assert [idle.turn() for _ in range(3)] == [0.0] * 3
    assert idle.found() is False, "nobody waits"
    idle.nothing()
    assert idle.turn() == pytest.approx(0.25), "pauses begin anew"


def test_a_hint_lets_one_look_at_once_and_begins_pauses_anew(idle: Idle, clock: Clock) -> None:
    for _ in range(6):
        idle.nothing()
        clock.now += idle.turn()
    idle.turn()
    idle.nothing()
    assert idle.turn() == pytest.approx(5.0)
    idle.wake()
    assert idle.turn() == 0.0
    assert idle.turn() > 0.0, "one is enough to see whether there is work"
    idle.nothing()
    assert idle.turn() == pytest.approx(0.5)


def test_a_hint_amid_a_look_lets_somebody_look_again_at_once(idle: Idle, clock: Clock) -> None:
    for _ in range(6):
        idle.nothing()
        clock.now += idle.turn()
    assert idle.turn() == 0.0
    idle.wake()
    idle.nothing(woken=True)
    assert idle.turn() == 0.0
    idle.conflict(woken=True)
    assert idle.turn() == 0.0
    idle.nothing()
    assert idle.turn() == pytest.approx(0.5)


def test_a_hint_while_there_is_work_changes_nothing(idle: Idle) -> None:
    idle.wake()
    assert [idle.turn() for _ in range(2)] == [0.0] * 2


def test_while_others_have_all_the_work_pauses_stay_short(idle: Idle, clock: Clock) -> None:
    for _ in range(10):
        clock.now += idle.turn()
        assert idle.turn() == 0.0
        idle.conflict()
    assert idle.turn() == pytest.approx(1.0)


def test_troubles_pause_for_longer_than_idleness(idle: Idle, clock: Clock) -> None:
    for _ in range(20):
        clock.now += idle.turn()
        assert idle.turn() == 0.0
        idle.trouble()
    assert idle.turn() == pytest.approx(LONGEST_TROUBLE)


def test_a_look_that_was_given_up_is_somebody_elses_turn(idle: Idle, clock: Clock) -> None:
    idle.nothing()
    clock.now += 0.25
    assert idle.turn() == 0.0
    idle.again()
    assert idle.turn() == 0.0


def test_chance_shortens_pauses_by_up_to_a_quarter(clock: Clock) -> None:
    idle = Idle(5.0, clock=clock, chance=lambda: 1.0)
    idle.nothing()
    assert idle.turn() == pytest.approx(0.25 * 0.75)
