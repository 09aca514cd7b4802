"""Questions for a connection that are repeated until the guest has answered."""

import math

from utilityvm.network.knocks import AFTER, MOST, Knocks


def test_a_question_is_repeated_later_and_later_and_then_no_more() -> None:
    one, told, now = Knocks(), [], 10.0
    one.arrived(b"a", b"frame", now)
    while one.due < math.inf:
        assert one.again(one.due - 0.01) == []
        told.append(one.due - now)
        now = one.due
        assert one.again(now) == [b"frame"]
    assert tuple(told) == AFTER


def test_one_that_is_answered_is_not_repeated() -> None:
    one = Knocks()
    one.arrived(b"a", b"first", 0.0)
    one.arrived(b"b", b"second", 0.5)
    one.answered(b"a")
    one.answered(b"unknown")
    assert one.again(1.0) == []
    assert one.due == 1.5
    assert one.again(1.5) == [b"second"]


def test_there_are_not_too_many() -> None:
    one = Knocks()
    for number in range(MOST + 1):
        one.arrived(str(number).encode(), b"frame", 0.0)
    assert len(one.again(1.0)) == MOST
