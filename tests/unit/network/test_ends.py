"""The guest's word that it sends no more, which passt takes for the end of all."""

import pytest

from utilityvm.network.ends import PAUSE, QUIET
from utilityvm.network.filter import Filter
from utilityvm.network.frames import ACK, FIN, RST, SYN

from .test_windows import PUBLIC, PUBLIC6, arriving, segment, start, total
from .wire import ME, ME6, a_filter


def told_to_end(one: Filter, now: float, target: str = PUBLIC, data: bytes = b"", window: int = 1000) -> bool:
    """Whether the guest's word arrives where it is for; what else is in its segment does in any case."""
    frame = segment(target, flags=FIN | ACK, data=data, window=window)
    before = bytes(frame)
    if not one.outgoing(memoryview(frame), now).passes:
        assert not data
        return False
    assert data or frame == before
    at = start(frame)
    assert total(frame) == 0
    assert (
        frame[: at + 13] + frame[at + 14 : at + 16] + frame[at + 18 :] == before[: at + 13] + before[at + 14 : at + 16] + before[at + 18 :]
    )
    return bool(frame[at + 13] & FIN)


def comes(one: Filter, now: float, flags: int = ACK, data: bytes = b"", source: str = PUBLIC) -> None:
    target = str(ME6) if ":" in source else str(ME)
    arriving(one, segment(target, source=source, own=443, flags=flags, data=data), port=40_000, now=now)


def begun(target: str = PUBLIC) -> Filter:
    one = a_filter(free=True)
    assert one.outgoing(memoryview(segment(target, flags=SYN)), 0.0).passes
    comes(one, 0.0, SYN | ACK, source=target)
    return one


@pytest.mark.parametrize("target", [PUBLIC, PUBLIC6])
def test_it_is_held_back_while_something_comes_and_goes_when_the_other_side_has_said_the_same(target: str) -> None:
    one = begun(target)
    assert not told_to_end(one, 0.0, target)
    for now in (0.9, 5.8, 10.7):
        comes(one, now, data=b"x", source=target)
        assert not told_to_end(one, now + 4.5, target, data=b"the last words")
    comes(one, 15.8, FIN | ACK, source=target)
    assert told_to_end(one, 15.8, target)


def test_it_goes_when_nothing_has_come_for_a_while_and_acknowledgements_are_nothing() -> None:
    one = begun()
    comes(one, 0.9)
    assert not told_to_end(one, QUIET - 0.1)
    assert told_to_end(one, QUIET)


def test_it_goes_later_when_the_other_side_has_said_something_and_not_while_nothing_can_come() -> None:
    one = begun()
    comes(one, 1.0, data=b"x")
    assert not told_to_end(one, 1.0 + PAUSE - 0.1)
    assert not told_to_end(one, 100.0, window=0)
    assert told_to_end(one, 100.0)


def test_it_goes_after_a_reset_and_where_nothing_ever_came() -> None:
    one = begun()
    comes(one, 0.0, RST | ACK)
    assert told_to_end(one, 0.0)
    silent = a_filter(free=True)
    assert told_to_end(silent, 0.0)


def test_a_guest_that_is_asked_on_a_published_port_ends_at_once() -> None:
    one = a_filter(free=True, tcp=(40_000,))
    comes(one, 0.0, SYN)
    comes(one, 0.0, data=b"a question")
    assert told_to_end(one, 0.0)
