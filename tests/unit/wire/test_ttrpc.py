"""Frames and both ends of ttrpc, against the protocol's own text and what Go's server was seen to do."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilityvm.kit.errors import Exhausted, ProtocolError
from utilityvm.wire import ttrpc
from utilityvm.wire.protobuf import decode
from utilityvm.wire.ttrpc import MAX_DATA, MAX_STREAM, Code, Flag, Frame, FrameReader, KeyValue, Request, Response, Status, TooLarge, Type
from utilityvm.wire.ttrpc_ends import (
    MAX_HELD,
    MAX_STREAMS,
    Answered,
    Broken,
    Called,
    ClientEnd,
    Finished,
    Reply,
    Said,
    ServerEnd,
    ServerEvent,
)

frames = st.builds(
    Frame, stream=st.integers(0, MAX_STREAM), type=st.integers(0, 255), flags=st.integers(0, 255), data=st.binary(max_size=40)
)
CALL = Request(service="s", method="m", payload=b"x")


def one(data: bytes) -> Frame:
    (frame,) = FrameReader().feed(data)
    assert isinstance(frame, Frame)
    return frame


def called(end: ServerEnd, stream: int = 1, flags: int = 0, request: Request = CALL) -> Sequence[ServerEvent]:
    return list(end.feed(ttrpc.encode(Frame(stream, Type.REQUEST, flags, ttrpc_bytes(request)))))


def ttrpc_bytes(request: Request) -> bytes:
    from utilityvm.wire.protobuf import encode

    return encode(request)


def data(end: ServerEnd, stream: int, flags: int = 0, body: bytes = b"") -> Sequence[ServerEvent]:
    return list(end.feed(ttrpc.encode(Frame(stream, Type.DATA, flags, body))))


def refusal(events: Sequence[ServerEvent], stream: int = 1) -> Status:
    """The status of the one reply among the events, which must be the last, on this stream."""
    last = events[-1]
    assert isinstance(last, Reply)
    frame = one(last.data)
    assert (frame.stream, frame.type, frame.flags) == (stream, Type.RESPONSE, 0)
    status = decode(frame.data, Response).status
    assert status is not None
    return status


# -- frames ---------------------------------------------------------------------------------------------------------


def test_a_frame_is_ten_bytes_and_its_body() -> None:
    frame = Frame(3, Type.DATA, Flag.CLOSED | Flag.NO_DATA, b"ab")
    assert ttrpc.encode(frame) == bytes.fromhex("00000002 00000003 03 05") + b"ab"
    assert one(ttrpc.encode(frame)) == frame


@given(st.lists(frames, max_size=6), st.data())
def test_a_stream_cut_anywhere_gives_the_same_frames(sent: list[Frame], draw: st.DataObject) -> None:
    stream, reader = b"".join(map(ttrpc.encode, sent)), FrameReader()
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    got = [frame for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True) for frame in reader.feed(stream[start:end])]
    assert got == sent
    assert not reader.half


@pytest.mark.parametrize("piece", [1 << 16, 1 << 30])
def test_a_body_that_is_too_large_is_told_of_at_once_and_thrown_away(piece: int) -> None:
    reader, after = FrameReader(), Frame(5, Type.DATA)
    header, body = ttrpc.HEADER.pack(MAX_DATA + 1, 3, Type.REQUEST, 0), bytes(MAX_DATA + 1) + ttrpc.encode(after)
    assert list(reader.feed(header)) == [TooLarge(3, MAX_DATA + 1)]
    assert reader.half
    got = [frame for at in range(0, len(body), piece) for frame in reader.feed(body[at : at + piece])]
    assert got == [after]
    assert not reader.half


def test_a_body_that_is_too_large_is_thrown_away_also_when_it_comes_with_its_header() -> None:
    after = Frame(5, Type.DATA)
    stream = ttrpc.HEADER.pack(MAX_DATA + 1, 3, Type.REQUEST, 0) + bytes(MAX_DATA + 1) + ttrpc.encode(after)
    assert list(FrameReader().feed(stream)) == [TooLarge(3, MAX_DATA + 1), after]


def test_the_largest_body_passes_and_one_byte_more_is_not_written() -> None:
    frame = Frame(1, Type.DATA, 0, bytes(MAX_DATA))
    assert one(ttrpc.encode(frame)) == frame
    with pytest.raises(ProtocolError, match=r"^message length 4194305 exceed maximum message size of 4194304$"):
        ttrpc.encode(Frame(1, Type.DATA, 0, bytes(MAX_DATA + 1)))


def test_a_key_of_metadata_has_all_its_values_and_is_written_in_small_letters() -> None:
    pairs = ttrpc.written({"Key": ("a", "b"), "other": ("c",)})
    assert pairs == (KeyValue(key="key", value="a"), KeyValue(key="key", value="b"), KeyValue(key="other", value="c"))
    assert ttrpc.read((*pairs, KeyValue(key="KEY", value="d"))) == {"key": ("a", "b", "d"), "other": ("c",)}


# -- the server's end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flags", "streaming", "more"), [(0, False, False), (Flag.CLOSED, True, False), (Flag.OPEN, True, True)])
def test_the_flags_of_a_request_say_what_sort_of_call_it_is(flags: int, streaming: bool, more: bool) -> None:
    assert called(ServerEnd(), flags=flags) == [Called(1, CALL, streaming, more)]


def test_a_unary_call_is_answered_by_one_response() -> None:
    end = ServerEnd()
    called(end)
    frame = one(end.answer(1, Response(payload=b"y")))
    assert frame == Frame(1, Type.RESPONSE, 0, bytes.fromhex("120179"))
    assert end.answer(1, Response()) == b""
    assert end.finish(1) == b""
    assert end.say(1, b"") == b""


def test_an_answer_that_is_too_large_leaves_the_stream_for_another() -> None:
    end = ServerEnd()
    called(end)
    with pytest.raises(ProtocolError, match="exceed maximum"):
        end.answer(1, Response(payload=bytes(MAX_DATA)))
    assert end.answer(1, Response())


def test_streams_are_odd_and_rise_and_a_refusal_leaves_the_connection() -> None:
    end = ServerEnd()
    assert refusal(called(end, 2), 2) == Status(code=Code.INVALID_ARGUMENT, message="StreamID must be odd for client initiated streams")
    assert called(end, 5)
    for stream in (5, 3):
        assert refusal(called(end, stream), stream).message == "StreamID cannot be re-used and must increment"
    assert called(end, 7) == [Called(7, CALL, streaming=False, more=False)]


def test_a_request_on_a_stream_that_is_open_breaks_it() -> None:
    end = ServerEnd()
    called(end, 1)
    broken, _ = called(end, 1)
    assert broken == Broken(1, Code.INVALID_ARGUMENT, "StreamID cannot be re-used and must increment")
    assert end.answer(1, Response()) == b""


def test_data_of_a_stream_that_is_over_or_never_was_are_refused() -> None:
    end = ServerEnd()
    called(end, 1)
    end.answer(1, Response())
    for stream in (1, 9):
        assert refusal(data(end, stream), stream) == Status(code=Code.INVALID_ARGUMENT, message="StreamID is no longer active")


def test_messages_come_until_the_client_is_done_and_an_empty_body_is_one() -> None:
    end = ServerEnd()
    called(end, 1, Flag.OPEN)
    assert data(end, 1, body=b"a") == [Said(1, b"a")]
    assert data(end, 1) == [Said(1, b"")]
    assert data(end, 1, Flag.NO_DATA) == []
    assert data(end, 1, Flag.CLOSED, b"z") == [Said(1, b"z"), Finished(1)]
    assert one(end.say(1, b"b")) == Frame(1, Type.DATA, 0, b"b")
    assert one(end.finish(1)) == Frame(1, Type.DATA, Flag.CLOSED | Flag.NO_DATA)


@pytest.mark.parametrize("flags", [0, Flag.CLOSED])
def test_data_after_the_client_said_that_no_more_comes_break_the_stream(flags: int) -> None:
    end = ServerEnd()
    called(end, 1, flags)
    broken, _ = events = data(end, 1, body=b"a")
    assert broken == Broken(1, Code.INVALID_ARGUMENT, "data handling error: the client had said that no more comes")
    assert refusal(events).code == Code.INVALID_ARGUMENT


def test_frames_that_nobody_knows_are_passed_over() -> None:
    end = ServerEnd()
    assert list(end.feed(ttrpc.encode(Frame(1, 9)) + ttrpc.encode(Frame(1, Type.RESPONSE)))) == []


def test_a_request_that_cannot_be_read_is_refused() -> None:
    end = ServerEnd()
    status = refusal(list(end.feed(ttrpc.encode(Frame(1, Type.REQUEST, 0, b"\x0a")))))
    assert status == Status(code=Code.INVALID_ARGUMENT, message="unmarshal request error: a number ends before its last byte")


def test_a_frame_that_is_too_large_ends_its_own_stream_only() -> None:
    end = ServerEnd()
    called(end, 1, Flag.OPEN)
    called(end, 3, Flag.OPEN)
    events = list(end.feed(ttrpc.HEADER.pack(MAX_DATA + 1, 1, Type.DATA, 0) + bytes(MAX_DATA + 1)))
    assert events[0] == Broken(1, Code.RESOURCE_EXHAUSTED, f"message length {MAX_DATA + 1} exceed maximum message size")
    assert refusal(events).code == Code.RESOURCE_EXHAUSTED
    assert data(end, 3, body=b"on") == [Said(3, b"on")]


def test_one_call_more_than_a_client_may_have_is_refused_until_one_has_ended() -> None:
    end = ServerEnd()
    for number in range(MAX_STREAMS):
        assert isinstance(called(end, 2 * number + 1)[0], Called)
    assert refusal(called(end, 2 * MAX_STREAMS + 1), 2 * MAX_STREAMS + 1).code == Code.RESOURCE_EXHAUSTED
    end.answer(1, Response())
    assert isinstance(called(end, 2 * MAX_STREAMS + 3)[0], Called)


def test_requests_that_are_too_large_together_are_refused() -> None:
    end, large = ServerEnd(), Request(payload=bytes(MAX_DATA - 64))
    sent = [called(end, 2 * number + 1, request=large)[0] for number in range(MAX_HELD // MAX_DATA + 1)]
    assert [isinstance(event, Called) for event in sent] == [True] * (MAX_HELD // MAX_DATA) + [False]
    end.finish(1)
    assert isinstance(called(end, 99, request=large)[0], Called)


@given(
    st.lists(
        frames | st.builds(Frame, stream=st.integers(0, 4), type=st.integers(1, 3), flags=st.integers(0, 7), data=st.binary(max_size=4))
    )
)
def test_whatever_a_client_sends_the_connection_lives_and_each_refusal_is_a_response(sent: list[Frame]) -> None:
    end = ServerEnd()
    for event in end.feed(b"".join(map(ttrpc.encode, sent))):
        if isinstance(event, Reply):
            assert one(event.data).type == Type.RESPONSE


# -- the client's end -----------------------------------------------------------------------------------------------


def replied(end: ClientEnd, *sent: Frame) -> list[object]:
    return list(end.feed(b"".join(map(ttrpc.encode, sent))))


def test_a_client_opens_odd_streams_that_rise_and_says_what_sort_they_are() -> None:
    end = ClientEnd()
    opened = [end.open(CALL), end.open(CALL, streaming=True), end.open(CALL, streaming=True, more=True)]
    assert [(stream, one(sent).stream, one(sent).flags) for stream, sent in opened] == [(1, 1, 0), (3, 3, Flag.CLOSED), (5, 5, Flag.OPEN)]
    assert one(opened[0][1]) == Frame(1, Type.REQUEST, 0, bytes.fromhex("0a017312016d1a0178"))


def test_an_answer_ends_a_call_and_a_second_one_is_passed_over() -> None:
    end = ClientEnd()
    end.open(CALL)
    answer = Frame(1, Type.RESPONSE, 0, bytes.fromhex("120179"))
    assert replied(end, answer, answer) == [Answered(1, Response(payload=b"y"))]


def test_what_comes_for_a_call_that_was_given_up_is_passed_over() -> None:
    end = ClientEnd()
    end.open(CALL)
    end.forget(1)
    end.forget(1)
    assert replied(end, Frame(1, Type.RESPONSE), Frame(1, Type.DATA)) == []


def test_a_server_sends_messages_until_it_is_done() -> None:
    end = ClientEnd()
    end.open(CALL, streaming=True)
    done = Frame(1, Type.DATA, Flag.CLOSED | Flag.NO_DATA)
    assert replied(end, Frame(1, Type.DATA, 0, b"a"), Frame(1, Type.DATA), done, Frame(1, Type.DATA)) == [
        Said(1, b"a"),
        Said(1, b""),
        Finished(1),
    ]


def test_a_client_sends_messages_until_it_is_done_and_none_afterwards() -> None:
    end = ClientEnd()
    stream, _ = end.open(CALL, streaming=True, more=True)
    assert one(end.say(stream, b"")) == Frame(1, Type.DATA)
    assert one(end.finish(stream)) == Frame(1, Type.DATA, Flag.CLOSED | Flag.NO_DATA)
    with pytest.raises(ProtocolError, match=f"stream {stream}: nothing more can be sent on it"):
        end.finish(stream)
    for other in (stream, 99):
        with pytest.raises(ProtocolError, match=f"stream {other}: nothing more can be sent on it"):
            end.say(other, b"")


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (ttrpc.encode(Frame(1, Type.DATA)), "the server sent data on a unary call"),
        (ttrpc.encode(Frame(1, Type.RESPONSE, 0, b"\xff")), "the server's answer cannot be read: a number ends before its last byte"),
        (ttrpc.HEADER.pack(MAX_DATA + 1, 1, Type.RESPONSE, 0), f"message length {MAX_DATA + 1} exceed maximum message size"),
    ],
)
def test_a_server_that_breaks_a_call_breaks_that_one(frame: bytes, why: str) -> None:
    end = ClientEnd()
    end.open(CALL)
    end.open(CALL)
    (broken,) = end.feed(frame)
    assert isinstance(broken, Broken)
    assert (broken.stream, broken.text) == (1, why)
    end.forget(1)


def test_frames_of_no_meaning_to_a_client_are_passed_over() -> None:
    end = ClientEnd()
    end.open(CALL)
    assert replied(end, Frame(1, Type.REQUEST), Frame(1, 9), Frame(2, Type.RESPONSE)) == []


def test_a_connection_whose_streams_were_all_used_opens_no_more() -> None:
    end = ClientEnd()
    end._next = MAX_STREAM
    end.open(CALL)
    with pytest.raises(Exhausted, match="all streams of this connection were used"):
        end.open(CALL)


def test_a_request_that_is_too_large_takes_no_stream() -> None:
    end = ClientEnd()
    with pytest.raises(ProtocolError, match="exceed maximum"):
        end.open(Request(payload=bytes(MAX_DATA)))
    assert end.open(CALL)[0] == 1


@given(
    st.lists(
        frames | st.builds(Frame, stream=st.integers(0, 6), type=st.integers(1, 3), flags=st.integers(0, 7), data=st.binary(max_size=4))
    )
)
def test_whatever_a_server_sends_a_client_takes_it(sent: list[Frame]) -> None:
    end = ClientEnd()
    for streaming in (False, True, True):
        end.open(CALL, streaming=streaming)
    assert all(isinstance(event, Answered | Said | Finished | Broken) for event in end.feed(b"".join(map(ttrpc.encode, sent))))
