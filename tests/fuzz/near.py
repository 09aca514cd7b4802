"""Streams of a guest that are nearly right, built by hypothesis: packets and frames with any fields, and what lies in between."""

from hypothesis import strategies as st

from utilityvm.wire import frames, packets
from utilityvm.wire.frames import Frame
from utilityvm.wire.packets import GUEST_CID, HEADER, HOST_CID, NONCE_BYTES, Control, Op, Packet

from .targets import PORTS

number = st.one_of(st.sampled_from([0, 1, 2, 3, 4096, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF]), st.integers(0, 0xFFFF_FFFF))
source = st.sampled_from([0x8000_0000, 0x8000_0001, 0, 0xFFFF_FFFF])
target = st.one_of(st.sampled_from(PORTS), number)

honest = st.builds(
    Packet,
    op=st.sampled_from([op for op in Op if op is not Op.RW]),
    src_port=source,
    dst_port=target,
    flags=number,
    buf_alloc=number,
    fwd_cnt=number,
)
data = st.builds(
    Packet,
    op=st.just(Op.RW),
    src_port=source,
    dst_port=target,
    payload=st.binary(min_size=1, max_size=60),
    buf_alloc=number,
    fwd_cnt=number,
)
with_nonce = {Control.RESET, Control.RESET_ACK}
control = st.sampled_from([Packet(each, payload=bytes(NONCE_BYTES if each in with_nonce else 0)) for each in Control])
lying = st.builds(
    HEADER.pack,
    st.sampled_from([2, 3, 0, 2**64 - 1]),
    st.sampled_from([2, 3]),
    source,
    target,
    st.sampled_from([0, 1, 16, 65_536, 65_537, 2**32 - 1]),
    st.sampled_from([1, 0x7576, 0, 0xFFFF]),
    st.integers(0, 8),
    number,
    number,
    number,
)


def as_guest(packet: Packet) -> bytes:
    return packets.encode(packet, src_cid=GUEST_CID, dst_cid=HOST_CID)


pieces = st.one_of(*[st.one_of(honest, data).map(as_guest)] * 8, control.map(as_guest), lying, st.binary(max_size=50))
"""One packet, or what looks like one."""

stream = st.lists(pieces, max_size=12).map(b"".join)
"""What a guest sends on its carrier."""

words = st.sampled_from([0x2010_0501, 0x3010_0F01, 0, 0xFFFF_FFFF])
whole = st.builds(Frame, type=words, id=number, body=st.binary(max_size=60)).map(frames.encode)
header = st.builds(frames.HEADER.pack, words, st.sampled_from([0, 15, 16, 17, 65_536, 65_537, 2**32 - 1]), number)
bridge = st.lists(st.one_of(whole, header, st.binary(max_size=30)), max_size=8).map(b"".join)
"""What a guest sends on its bridge."""
