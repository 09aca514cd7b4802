"""Packets of the guest connection: the 44-byte header of the VIRTIO socket device and our control packets.

protocol/SPEC.md sections 2 and 4; VIRTIO 1.2 section 5.10.6. Knows the form of a packet, not what a connection is.
"""

import struct
from collections.abc import Iterator
from enum import Enum
from typing import Final

import msgspec

from utilityvm.kit.errors import ProtocolError

HEADER: Final = struct.Struct("<QQIIIHHIII")
MAX_PAYLOAD: Final = 65_536
"""Largest payload of one packet, in bytes."""

HOST_CID: Final = 2
GUEST_CID: Final = 3
STREAM: Final = 1
CONTROL: Final = 0x7576
NONCE_BYTES: Final = 16
ONCE: Final = 1
"""Flag of LISTEN: until the first REQUEST."""

PROGRAMS: Final = 2
"""Flag of LISTEN: programs of the guest may dial the port by AF_VSOCK as well."""

SHUT_RECEIVE: Final = 1
SHUT_SEND: Final = 2
SHUT_BOTH: Final = SHUT_RECEIVE | SHUT_SEND


class Op(Enum):
    """Operation of a stream packet."""

    REQUEST = 1
    RESPONSE = 2
    RST = 3
    SHUTDOWN = 4
    RW = 5
    CREDIT_UPDATE = 6
    CREDIT_REQUEST = 7


class Control(Enum):
    """Operation of a control packet."""

    RESET = 1
    RESET_ACK = 2
    LISTEN = 3
    UNLISTEN = 4
    QUIESCE = 5
    QUIESCED = 6


_STREAM_OPS: Final = {op.value: op for op in Op}
_CONTROL_OPS: Final = {op.value: op for op in Control}


class Packet(msgspec.Struct, frozen=True):
    """One packet, without its CIDs, which follow from who sends it."""

    op: Op | Control
    src_port: int = 0
    dst_port: int = 0
    payload: bytes = b""
    flags: int = 0
    buf_alloc: int = 0
    fwd_cnt: int = 0


def encode(packet: Packet, *, src_cid: int = HOST_CID, dst_cid: int = GUEST_CID) -> bytes:
    """Return the bytes of `packet`, as the host sends it unless CIDs say otherwise."""
    kind = STREAM if isinstance(packet.op, Op) else CONTROL
    header = HEADER.pack(
        src_cid,
        dst_cid,
        packet.src_port,
        packet.dst_port,
        len(packet.payload),
        kind,
        packet.op.value,
        packet.flags,
        packet.buf_alloc,
        packet.fwd_cnt,
    )
    return header + packet.payload


class PacketReader:
    """Cut a byte stream from the peer into packets, however it is split. Keeps at most one packet's bytes between calls."""

    def __init__(self, *, src_cid: int = GUEST_CID, dst_cid: int = HOST_CID) -> None:
        self._cids = (src_cid, dst_cid)
        self._kept = bytearray()
        self._offset = 0

    def feed(self, data: bytes) -> Iterator[Packet]:
        """Take bytes and give the packets that are now complete; those before a refused one come first, however the stream is cut.

        Raises:
            ProtocolError: the peer sent what no packet may be; the reader must not be fed again.
        """
        self._kept += data
        at = 0
        try:
            while len(self._kept) - at >= HEADER.size:
                fields = HEADER.unpack_from(self._kept, at)
                begin = at + HEADER.size
                end = begin + self._check(fields, at)
                if end > len(self._kept):
                    break
                at = end
                with memoryview(self._kept) as view:
                    payload = bytes(view[begin:end])
                yield _packet(fields, payload)
        finally:
            del self._kept[:at]
            self._offset += at

    def _check(self, fields: tuple[int, ...], at: int) -> int:
        """Refuse an impossible header before its payload is waited for; return the payload's size."""
        src_cid, dst_cid, _, _, size, kind, op, _, _, _ = fields
        where = f"guest connection, byte {self._offset + at}"
        if size > MAX_PAYLOAD:
            raise ProtocolError(f"{where}: payload of {size} bytes (at most {MAX_PAYLOAD})")
        if (src_cid, dst_cid) != self._cids:
            raise ProtocolError(f"{where}: CIDs {src_cid} to {dst_cid}, expected {self._cids[0]} to {self._cids[1]}")
        if kind == STREAM:
            if op not in _STREAM_OPS:
                raise ProtocolError(f"{where}: unknown stream operation {op}")
            right = size > 0 if _STREAM_OPS[op] is Op.RW else size == 0
        elif kind == CONTROL:
            if op not in _CONTROL_OPS:
                raise ProtocolError(f"{where}: unknown control operation {op}")
            right = size == (NONCE_BYTES if _CONTROL_OPS[op] in {Control.RESET, Control.RESET_ACK} else 0)
        else:
            raise ProtocolError(f"{where}: unknown packet type {kind}")
        if not right:
            raise ProtocolError(f"{where}: operation {op} of type {kind} with {size} bytes of payload")
        return size


def _packet(fields: tuple[int, ...], payload: bytes) -> Packet:
    _, _, src_port, dst_port, _, kind, op, flags, buf_alloc, fwd_cnt = fields
    return Packet(_STREAM_OPS[op] if kind == STREAM else _CONTROL_OPS[op], src_port, dst_port, payload, flags, buf_alloc, fwd_cnt)
