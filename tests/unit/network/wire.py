"""Frames as a guest would write them, honest or not."""

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from utilityvm.network.filter import Filter, Place, Verdict
from utilityvm.network.frames import TCP, UDP, checksum
from utilityvm.network.policy import Policy, parse_hosts, parse_rules
from utilityvm.network.windows import ROOM

MAC, GATEWAY = bytes.fromhex("020000000001"), bytes.fromhex("02755664736f")
ME, ME6, RESOLVER = IPv4Address("10.0.2.15"), IPv6Address("fd00::15"), IPv4Address("10.0.2.3")
NOWHERE = "0.0.0.0"  # noqa: S104 (an address in a packet)
SYN = 2
ACK = 16


def a_filter(
    *rules: str,
    free: bool = False,
    tcp: tuple[int, ...] = (),
    udp: tuple[int, ...] = (),
    mine: tuple[str, ...] = (),
    hosts: tuple[str, ...] = (),
    room: int = ROOM,
) -> Filter:
    """A filter of these rules; `free` without a policy."""
    policy = Policy(None if free else parse_rules(rules), tuple(ip_network(text) for text in mine))
    return Filter(Place(MAC, GATEWAY, ME, ME6, RESOLVER), policy, {TCP: frozenset(tcp), UDP: frozenset(udp)}, parse_hosts(hosts), room)


def ip(
    target: str, protocol: int, carried: bytes, *, source: str = "", options: bytes = b"", fragment: int = 0x4000, size: int = 0
) -> bytes:
    """A packet of either family in a frame."""
    to = ip_address(target)
    if to.version == 6:
        by = ip_address(source or str(ME6))
        head = struct.pack("!IHBB", 6 << 28, size or len(carried), protocol, 64) + by.packed + to.packed
        return GATEWAY + MAC + b"\x86\xdd" + head + carried
    by = ip_address(source or str(ME))
    words = 5 + len(options) // 4
    total = size or words * 4 + len(carried)
    head = struct.pack("!BBHHHBBH", 0x40 | words, 0, total, 7, fragment, 64, protocol, 0) + by.packed + to.packed + options
    return GATEWAY + MAC + b"\x08\x00" + head[:10] + struct.pack("!H", checksum(head)) + head[12:] + carried


def tcp(target: str, port: int, *, flags: int = SYN, own: int = 40_000, data: bytes = b"", **how: object) -> bytes:
    """A segment."""
    return ip(target, TCP, struct.pack("!HHIIBBHHH", own, port, 1000, 0, 0x50, flags, 0, 0, 0) + data, **how)  # type: ignore[arg-type]


def udp(target: str, port: int, data: bytes = b"", *, own: int = 40_000, **how: object) -> bytes:
    """A datagram."""
    return ip(target, UDP, struct.pack("!HHHH", own, port, 8 + len(data), 0) + data, **how)  # type: ignore[arg-type]


def out(one: Filter, frame: bytes, now: float = 0.0) -> Verdict:
    """What becomes of a frame of the guest's."""
    return one.outgoing(memoryview(bytearray(frame)), now)


def passes(one: Filter, frame: bytes, now: float = 0.0) -> bool:
    """Whether it leaves the guest."""
    return out(one, frame, now).passes


def query(name: str, kind: int = 1, *, number: int = 7, extra: bytes = b"", counts: tuple[int, int, int, int] = (1, 0, 0, 0)) -> bytes:
    """A question for a name."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"
    return struct.pack("!6H", number, 0x0100, *counts) + labels + struct.pack("!HH", kind, 1) + extra


def reply(question: bytes, *records: tuple[str, int, bytes], number: int = 7, code: int = 0, seconds: int = 60) -> bytes:
    """An answer with these records: name (``""``: the one asked for), kind and content."""
    body = b""
    for name, kind, data in records:
        owner = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0" if name else b"\xc0\x0c"
        body += owner + struct.pack("!HHIH", kind, 1, seconds, len(data)) + data
    return struct.pack("!6H", number, 0x8180 | code, 1, len(records), 0, 0) + question[12:] + body
