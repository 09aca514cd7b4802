from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilityvm.kit.errors import ProtocolError
from utilityvm.wire.packets import (
    GUEST_CID,
    HEADER,
    HOST_CID,
    MAX_PAYLOAD,
    STREAM,
    Control,
    Op,
    Packet,
    PacketReader,
    encode,
)

ports = st.integers(0, 2**32 - 1)
stream_packets = st.builds(
    Packet,
    op=st.sampled_from([op for op in Op if op is not Op.RW]),
    src_port=ports,
    dst_port=ports,
    flags=ports,
    buf_alloc=ports,
    fwd_cnt=ports,
)
data_packets = st.builds(Packet, op=st.just(Op.RW), src_port=ports, dst_port=ports, payload=st.binary(min_size=1, max_size=200))
control_packets = st.builds(Packet, op=st.sampled_from([Control.LISTEN, Control.UNLISTEN, Control.QUIESCE]), dst_port=ports)
packets = st.one_of(stream_packets, data_packets, control_packets)


def as_guest(packet: Packet) -> bytes:
    return encode(packet, src_cid=GUEST_CID, dst_cid=HOST_CID)


@given(st.lists(packets, max_size=8), st.data())
def test_a_stream_cut_anywhere_gives_the_same_packets(sent: list[Packet], data: st.DataObject) -> None:
    stream = b"".join(as_guest(packet) for packet in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    reader = PacketReader()
    got: list[Packet] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += reader.feed(stream[start:end])
    assert got == sent


def test_a_stream_fed_byte_by_byte_gives_the_same_packets() -> None:
    sent = [
        Packet(Op.REQUEST, 0x80000000, 109, buf_alloc=4096),
        Packet(Op.RW, 7, 9, b"hello", fwd_cnt=3),
        Packet(Control.RESET_ACK, payload=bytes(16)),
    ]
    reader = PacketReader()
    got = [packet for byte in b"".join(map(as_guest, sent)) for packet in reader.feed(bytes([byte]))]
    assert got == sent


@given(st.binary(max_size=400))
def test_garbage_is_refused_or_waits_for_more(garbage: bytes) -> None:
    with pytest.raises(ProtocolError, match="guest connection, byte") if len(garbage) >= HEADER.size else nullcontext():
        list(PacketReader().feed(garbage))


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (HEADER.pack(3, 2, 1, 1, MAX_PAYLOAD + 1, STREAM, Op.RW.value, 0, 0, 0), "payload of 65537 bytes"),
        (HEADER.pack(4, 2, 1, 1, 0, STREAM, Op.REQUEST.value, 0, 0, 0), "CIDs 4 to 2"),
        (HEADER.pack(3, 2, 1, 1, 0, 9, Op.REQUEST.value, 0, 0, 0), "unknown packet type 9"),
        (HEADER.pack(3, 2, 1, 1, 0, STREAM, 99, 0, 0, 0), "unknown stream operation 99"),
        (HEADER.pack(3, 2, 1, 1, 0, 0x7576, 99, 0, 0, 0), "unknown control operation 99"),
        (HEADER.pack(3, 2, 1, 1, 0, STREAM, Op.RW.value, 0, 0, 0), "with 0 bytes of payload"),
        (HEADER.pack(3, 2, 1, 1, 5, STREAM, Op.RST.value, 0, 0, 0), "with 5 bytes of payload"),
        (HEADER.pack(3, 2, 1, 1, 15, 0x7576, Control.RESET_ACK.value, 0, 0, 0), "with 15 bytes of payload"),
    ],
)
def test_an_impossible_header_is_refused_before_its_payload_arrives(header: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        list(PacketReader().feed(header))


def test_the_offset_of_the_broken_packet_is_told() -> None:
    good = as_guest(Packet(Op.RW, 1, 2, b"x" * 56))
    with pytest.raises(ProtocolError, match="byte 100:"):
        list(PacketReader().feed(good + HEADER.pack(9, 9, 0, 0, 0, 1, 1, 0, 0, 0)))
