"""Windows that are narrowed to what there is room for."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilityvm.network.filter import Filter
from utilityvm.network.frames import ACK, PSH, SYN, TCP, checksum, window_scale
from utilityvm.network.windows import LEAST, Windows

from .wire import GATEWAY, MAC, ME, a_filter, ip, out

PUBLIC, PUBLIC6 = "1.1.1.1", "2600::1"
NO_OPERATION, END = b"\1", b"\0"
MSS, SCALE = b"\2\4\xff\xd7", b"\3\3"


def segment(
    target: str = PUBLIC, *, window: int = 0xFFFF, flags: int = ACK, options: bytes = b"", own: int = 40_000, data: bytes = b"", **how: str
) -> bytearray:
    """A segment whose checksum is right."""
    options += bytes(-len(options) % 4)
    head = struct.pack("!HHIIBBHHH", own, 443, 7, 9, (5 + len(options) // 4) << 4, flags, window, 0, 0) + options + data
    frame = bytearray(ip(target, TCP, head, **how))  # type: ignore[arg-type]
    at = start(frame)
    frame[at + 16 : at + 18] = struct.pack("!H", total(frame))
    return frame


def start(frame: bytes | bytearray) -> int:
    return 34 if frame[12:14] == b"\x08\0" else 54


def total(frame: bytes | bytearray) -> int:
    """The checksum of a segment: 0 when it has the right one."""
    at = start(frame)
    addresses = bytes(frame[26:34] if at == 34 else frame[22:54])
    return checksum(addresses + struct.pack("!II", len(frame) - at, TCP) + bytes(frame[at:]))


def window(frame: bytes | bytearray) -> int:
    return int.from_bytes(frame[start(frame) + 14 : start(frame) + 16])


def narrowed(one: Windows, scale: int, asked: int = 0xFFFF, now: float = 0.0) -> int:
    frame = segment(window=asked)
    one.narrow(memoryview(frame), start(frame), scale, now)
    assert total(frame) == 0
    return window(frame) << scale


def came(one: Windows, *names: bytes) -> None:
    for name in names:
        frame = segment()
        one.arrived(name, memoryview(frame), start(frame))


@given(st.integers(0, 0xFFFF), st.integers(0, 14), st.integers(LEAST, 1 << 24))
def test_a_window_is_never_wider_than_the_room_and_never_closed(asked: int, scale: int, room: int) -> None:
    told = narrowed(Windows(room), scale, asked)
    assert told == asked << scale if asked << scale <= room else 0 < told <= max(room, 1 << scale)


def test_the_room_is_shared_by_the_connections_that_something_came_for_lately() -> None:
    one = Windows(1 << 20)
    assert narrowed(one, 7) == 1 << 20
    came(one, b"a", b"b", b"c", b"d", b"a")
    assert narrowed(one, 7) == 1 << 18
    came(one, b"a")
    assert narrowed(one, 7, now=1.5) == 1 << 18  # all four in the second before
    came(one, b"a")
    assert narrowed(one, 7, now=3.0) == 1 << 20
    came(one, *(str(number).encode() for number in range(1000)))
    assert narrowed(one, 7, now=3.0) == LEAST


@given(st.binary(max_size=40), st.booleans())
def test_a_scale_is_found_among_options_whatever_they_are(before: bytes, known: bool) -> None:
    frame = segment(flags=SYN, options=before[:36])
    assert 0 <= window_scale(bytes(frame), 34, len(frame)) <= 14
    plain = MSS + NO_OPERATION + (SCALE + b"\7" if known else b"") + END
    frame = segment(flags=SYN, options=plain)
    assert window_scale(bytes(frame), 34, len(frame)) == (7 if known else 0)


@pytest.mark.parametrize("target", [PUBLIC, PUBLIC6])
def test_what_a_guest_asks_for_is_narrowed_from_the_scale_that_it_began_with(target: str) -> None:
    one = a_filter(free=True, room=65_536)
    first = segment(target, flags=SYN, options=MSS + SCALE + b"\7")
    assert window(passed(one, first)) == 0xFFFF  # which is not shifted yet
    later = passed(one, segment(target, data=b"x"))
    assert window(later) == 512
    assert total(later) == 0
    assert window(passed(one, segment(target, window=500))) == 500
    assert window(passed(one, segment(target, own=9))) == 0xFFFF  # nobody saw it begin


def test_so_is_what_it_asks_for_on_a_published_port() -> None:
    one = a_filter(free=True, tcp=(40_000,), room=65_536)
    arriving(one, segment(str(ME), flags=SYN, own=443, source=PUBLIC), port=40_000)
    assert window(passed(one, segment(flags=SYN | ACK, options=SCALE + b"\7"))) == 0xFFFF
    assert window(passed(one, segment())) == 512


def test_where_there_is_little_room_what_comes_is_to_be_acknowledged_soon() -> None:
    frame = segment(str(ME), source=PUBLIC, own=443, data=b"x" * 100)
    for room, flags in ((1 << 17, ACK), ((1 << 17) - 1, ACK | PSH)):
        arrived = arriving(a_filter(free=True, room=room), bytearray(frame), port=40_000)
        assert arrived[47] == flags
        assert total(arrived) == 0


def test_a_segment_that_is_cut_off_passes_as_it_is() -> None:
    one = a_filter(free=True, room=65_536)
    passed(one, segment(flags=SYN, options=SCALE + b"\7"))
    assert out(one, bytes(segment()[:50])).passes


def passed(one: Filter, frame: bytearray) -> bytearray:
    """Let a segment of the guest's leave, and return what leaves."""
    assert one.outgoing(memoryview(frame), 0.0).passes
    return frame


def arriving(one: Filter, frame: bytearray, port: int, now: float = 0.0) -> bytearray:
    """Let a segment come for the guest, to a port of its."""
    frame[:12] = MAC + GATEWAY
    at = start(frame)
    frame[at + 2 : at + 4] = struct.pack("!H", port)
    frame[at + 16 : at + 18] = bytes(2)
    frame[at + 16 : at + 18] = struct.pack("!H", total(frame))
    one.incoming(memoryview(frame), now)
    return frame
