"""What programs of the host say by ttrpc: both ends take it however it is cut; an endpoint is read or refused in either of its meanings."""

import re
from collections.abc import Hashable
from itertools import pairwise
from random import Random
from typing import Final

from utilityvm.kit.errors import InvalidOptions, Unsupported
from utilityvm.wire import ncproxy
from utilityvm.wire.hcn import Dns, HostComputeEndpoint
from utilityvm.wire.protobuf import decode, encode
from utilityvm.wire.ttrpc import Flag, Frame, FrameReader, KeyValue, Request, Response, Status, Type
from utilityvm.wire.ttrpc import encode as framed
from utilityvm.wire.ttrpc_ends import Broken, Called, ClientEnd, ClientEvent, Finished, Reply, Said, ServerEnd, ServerEvent

from .mutate import Form

FRAME: Final = Form(lambda data: 10 + int.from_bytes(data[:4], "big"), ((0, 4), (4, 4), (8, 1), (9, 1)))

_CALL: Final = encode(Request(service="s", method="m", payload=b"p", timeout_nano=300, metadata=(KeyValue(key="k", value="v"),)))
_DONE: Final = Flag.CLOSED | Flag.NO_DATA
SEEDS: Final = tuple(
    b"".join(map(framed, frames))
    for frames in (
        [Frame(1, Type.REQUEST, 0, _CALL), Frame(3, Type.REQUEST, Flag.CLOSED, _CALL), Frame(3, Type.DATA)],
        [Frame(1, Type.REQUEST, Flag.OPEN, _CALL), Frame(1, Type.DATA, 0, b"m"), Frame(1, Type.DATA, _DONE), Frame(5, Type.REQUEST)],
        [Frame(1, Type.RESPONSE, 0, encode(Response(status=Status(code=5, message="no"), payload=b"p")))],
        [Frame(3, Type.DATA, 0, b"m"), Frame(3, Type.DATA, _DONE), Frame(5, Type.RESPONSE), Frame(2, Type.REQUEST), Frame(1, 9)],
    )
)
ENDPOINTS: Final = (
    b"eth0",
    ncproxy.endpoint(HostComputeEndpoint(name="user", dns=Dns(server_list=["9.9.9.9"]))),
    encode(ncproxy.Any(type_url=ncproxy.OWN_ENDPOINT, value=b"{}")),
    encode(ncproxy.Any(type_url=ncproxy.HCN_ENDPOINT, value=b'{"x":' + b"[" * 980)),
)


def _ends() -> tuple[ServerEnd, ClientEnd]:
    client = ClientEnd()
    for streaming in (False, True, True):
        client.open(Request(), streaming=streaming, more=streaming)
    return ServerEnd(), client


def check(data: bytes, chance: Random) -> Hashable:
    """Read the data at both ends, whole and in pieces: the same must come out, and each refusal be a response."""
    server, client = _ends()
    served, seen = list(server.feed(data)), list(client.feed(data))
    ends = sorted(int(chance.random() * (len(data) + 1)) for _ in range(2))
    pieces = [data[start:end] for start, end in pairwise([0, *ends, len(data)])]
    again, other = _ends()
    assert [event for piece in pieces for event in again.feed(piece)] == served
    assert [event for piece in pieces for event in other.feed(piece)] == seen
    _hold_to_the_protocol(server, served)
    assert server._held == sum(stream.size for stream in server._streams.values())
    return (tuple(map(_name, served[:4])), tuple(map(_name, seen[:4])))


def _hold_to_the_protocol(server: ServerEnd, events: list[ServerEvent]) -> None:
    running: set[int] = set()
    for event in events:
        match event:
            case Reply(reply):
                (frame,) = FrameReader().feed(reply)
                assert isinstance(frame, Frame)
                status = decode(frame.data, Response).status
                assert status is not None
                assert status.code
            case Called(stream):
                assert stream & 1
                running.add(stream)
            case Broken(stream):
                running.remove(stream)
            case Said(stream) | Finished(stream):
                assert stream in running
    assert running == server._streams.keys()


def _name(event: ServerEvent | ClientEvent) -> str:
    return type(event).__name__


def check_endpoint(data: bytes, _chance: Random) -> Hashable:
    """Read the data as an endpoint."""
    try:
        wanted = ncproxy.endpoint_of(data)
    except (InvalidOptions, Unsupported) as error:
        return f"{type(error).__name__}: {re.sub('[0-9]+|`.*|. at .*', '', error.message)[:40]}"
    return (bool(wanted.name), bool(wanted.dns), wanted.flags)
