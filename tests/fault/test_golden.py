"""The vectors in protocol/golden through both readers and both writers: a stream means the same however it is cut."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from utilityvm.kit.errors import ProtocolError
from utilityvm.wire.frames import Frame, FrameReader
from utilityvm.wire.frames import encode as encode_frame
from utilityvm.wire.packets import CONTROL, GUEST_CID, HOST_CID, STREAM, Control, Op, Packet, PacketReader
from utilityvm.wire.packets import encode as encode_packet

FOLDER = Path(__file__).parents[2] / "protocol" / "golden"
REASONS = {
    "payload-too-long": r"payload of \d+ bytes \(at most",
    "wrong-cids": "CIDs",
    "unknown-type": "unknown packet type",
    "unknown-op": "unknown (stream|control) operation",
    "payload-of-wrong-size": "bytes of payload$",
    "size": "invalid message size",
}
CUTS_UP_TO = 2048
"""A stream up to this long is cut at every byte; of a longer one, every so many bytes that there are as many cuts."""

Event = dict[str, object]
Feed = Callable[[bytes], Iterator[object]]


def unhex(text: str) -> bytes:
    """Read bytes as the vectors are written: pieces, and ``78*3`` for ``787878``."""
    pieces = (piece.partition("*") for piece in text.split())
    return b"".join(bytes.fromhex(digits) * int(times or 1) for digits, _, times in pieces)


def vectors(name: str) -> list[object]:
    found = json.loads((FOLDER / name).read_text())
    assert found
    return [pytest.param(vector, id=vector["name"]) for vector in found]


def expected(vector: Event) -> tuple[list[Event], str]:
    """Return the events of a vector, their bytes read, and the reason for which it is refused."""
    told = [dict(event) for event in vector["events"]]  # type: ignore[attr-defined]
    reason = str(told.pop()["error"]) if told and "error" in told[-1] else ""
    for event in told:
        for name in event.keys() & {"payload", "body"}:
            event[name] = unhex(str(event[name]))
    return told, reason


def read(feed: Feed, show: Callable[[object], Event], pieces: list[bytes], reason: str) -> list[Event]:
    """Feed a stream in pieces and return what was told; it must be refused if there is a reason."""
    got: list[Event] = []

    def all_of_it() -> None:
        for piece in pieces:
            got.extend(map(show, feed(piece)))

    if reason:
        with pytest.raises(ProtocolError, match=REASONS[reason]):
            all_of_it()
    else:
        all_of_it()
    return got


def cuts(data: bytes) -> Iterator[list[bytes]]:
    yield [data]
    if len(data) <= CUTS_UP_TO:
        yield [data[at : at + 1] for at in range(len(data))]
    for at in range(1, len(data), max(1, len(data) // CUTS_UP_TO)):
        yield [data[:at], data[at:]]


def show_packet(item: object) -> Event:
    assert isinstance(item, Packet)
    kind = STREAM if isinstance(item.op, Op) else CONTROL
    return asdict(item) | {"type": kind, "op": item.op.value}


def packet_of(event: Event) -> Packet:
    fields = {name: value for name, value in event.items() if name not in {"type", "op"}}
    return Packet(Op(event["op"]) if event["type"] == STREAM else Control(event["op"]), **fields)  # type: ignore[arg-type]


def show_frame(item: object) -> Event:
    assert isinstance(item, Frame)
    return asdict(item)


@pytest.mark.parametrize("vector", vectors("packets.json"))
def test_packets(vector: Event) -> None:
    told, reason = expected(vector)
    sender, receiver = (HOST_CID, GUEST_CID) if vector["from"] == "host" else (GUEST_CID, HOST_CID)
    data = unhex(str(vector["hex"]))
    for pieces in cuts(data):
        reader = PacketReader(src_cid=sender, dst_cid=receiver)
        assert read(reader.feed, show_packet, pieces, reason) == told, [len(piece) for piece in pieces[:2]]
    assert data.startswith(b"".join(encode_packet(packet_of(event), src_cid=sender, dst_cid=receiver) for event in told))


@pytest.mark.parametrize("vector", vectors("frames.json"))
def test_frames(vector: Event) -> None:
    told, reason = expected(vector)
    data = unhex(str(vector["hex"]))
    for pieces in cuts(data):
        assert read(FrameReader().feed, show_frame, pieces, reason) == told, [len(piece) for piece in pieces[:2]]
    assert data.startswith(b"".join(encode_frame(Frame(**event)) for event in told))  # type: ignore[arg-type]
