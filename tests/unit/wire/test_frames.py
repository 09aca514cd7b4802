import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilityvm.kit.errors import ProtocolError
from utilityvm.wire.frames import HEADER, MAX_FRAME, Frame, FrameReader, encode

frames = st.builds(Frame, type=st.integers(0, 2**32 - 1), id=st.integers(0, 2**64 - 1), body=st.binary(max_size=300))


@given(st.lists(frames, max_size=6), st.data())
def test_a_stream_cut_anywhere_gives_the_same_frames(sent: list[Frame], data: st.DataObject) -> None:
    stream = b"".join(encode(frame) for frame in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    reader = FrameReader()
    got: list[Frame] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += reader.feed(stream[start:end])
    assert got == sent


def test_the_reader_knows_whether_half_a_frame_has_come() -> None:
    reader, sent = FrameReader(), encode(Frame(1, 2, b"body"))
    assert not reader.half
    assert list(reader.feed(sent[:-1])) == []
    assert reader.half
    assert list(reader.feed(sent[-1:])) == [Frame(1, 2, b"body")]
    assert not reader.half


@pytest.mark.parametrize("size", [0, 15, MAX_FRAME + 1, 2**32 - 1])
def test_an_impossible_size_is_refused_with_the_originals_words(size: int) -> None:
    with pytest.raises(ProtocolError, match=f"^invalid message size {size}$"):
        list(FrameReader().feed(HEADER.pack(0x20100501, size, 0)))


def test_a_frame_of_the_largest_size_passes_and_one_byte_more_does_not() -> None:
    frame = Frame(0x20100501, 1, bytes(MAX_FRAME - HEADER.size))
    assert list(FrameReader().feed(encode(frame))) == [frame]
    with pytest.raises(ProtocolError, match="65537 bytes"):
        encode(Frame(0x20100501, 1, bytes(MAX_FRAME - HEADER.size + 1)))


def test_the_specifications_example_is_what_we_send() -> None:
    from utilityvm.wire import gcs

    body = gcs.encode_request(gcs.NegotiateRequest(container_id=""))
    assert body == (b'{"ContainerId":"","ActivityId":"00000000-0000-0000-0000-000000000000","MinimumVersion":4,"MaximumVersion":4}\n')
    assert encode(Frame(gcs.NEGOTIATE.word, 0, body))[:16] == bytes.fromhex("010b1010 7d000000 0000000000000000")
