"""QEMU's messages, as QEMU says them and as nobody should."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilityvm.compute.qemu.qmp import MAX_LINE, Answer, Happened, Message, MessageReader, Refusal, encode
from utilityvm.kit.errors import ProtocolError

SAID = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}\r\n'
    b'{"return": {}, "id": 0}\r\n'
    b'{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}\r\n'
    b'{"id": 1, "error": {"class": "DeviceNotFound", "desc": "no \\u001b[2Jbus"}}\r\n'
    b'{"return": [1, null], "id": 2}\r\n'
    b'{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}\r\n'
)
MEANT = [
    Answer(0, {}),
    Happened("STOP", {}),
    Refusal(1, "DeviceNotFound", "no \\x1b[2Jbus"),
    Answer(2, [1, None]),
    Happened("SHUTDOWN", {"guest": True, "reason": "guest-reset"}),
]


def read(*pieces: bytes) -> list[Message]:
    reader = MessageReader()
    return [message for piece in pieces for message in reader.feed(piece)]


@given(st.lists(st.integers(0, len(SAID)), max_size=5))
def test_messages_are_read_however_they_are_cut(cuts: list[int]) -> None:
    ends = sorted(cuts)
    assert read(*(SAID[start:end] for start, end in zip([0, *ends], [*ends, len(SAID)], strict=True))) == MEANT


def test_a_command_is_a_line() -> None:
    assert encode(3, "stop") == b'{"execute":"stop","id":3}\n'
    assert encode(4, "device_del", {"id": "x"}) == b'{"execute":"device_del","id":4,"arguments":{"id":"x"}}\n'


def test_a_number_of_an_answer_to_nobody_and_an_empty_line_mean_nothing() -> None:
    assert read(b'{"return": {}}\n\r\n \n{}\n') == []


@pytest.mark.parametrize(
    "line",
    [
        b"garbage",
        b"[]",
        b"\xff\xfe",
        b'"QMP"',
        b'{"event": 7}',
        b'{"event": "STOP", "data": []}',
        b'{"id": [], "return": 1}',
        b'{"id": "x", "return": 1}',
        b'{"id": 1e400, "return": 1}',
        b'{"id": 1, "error": "x"}',
        b'{"error": {"class": "GenericError", "desc": "JSON parse error"}}',
        b'{"return": ' + b"[" * 100_000,
        b'{"QMP": ' + b'{"a":' * 100_000,
        b'{"event": "\\ud800"}',
    ],
)
def test_what_is_no_message_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="QEMU's monitor: ") as caught:
        read(line + b"\n")
    assert caught.value.message.isprintable()


def test_a_line_without_end_is_refused_before_it_is_held() -> None:
    reader = MessageReader()
    for _ in range(MAX_LINE // 65_536):
        assert list(reader.feed(b"x" * 65_536)) == []
    with pytest.raises(ProtocolError, match="a line of more than 1048576 bytes"):
        list(reader.feed(b"x"))
    assert list(MessageReader().feed(b" " * MAX_LINE + b"\n")) == []
    with pytest.raises(ProtocolError, match="a line of more than"):
        read(b" " * MAX_LINE, b" \n")


@pytest.mark.parametrize("line", [b'{"x":[' + (b"[" * 400 + b"]" * 400 + b",") * 1200 + b"1]}\n", SAID * 2000])
def test_what_is_not_asked_for_takes_no_memory(line: bytes) -> None:
    tracemalloc.start()
    try:
        for _ in MessageReader().feed(line):
            pass
        assert tracemalloc.get_traced_memory()[1] < 8 * MAX_LINE
    finally:
        tracemalloc.stop()
