"""Ethernet frames: the few things that are looked at in each, and those that we write ourselves. Pure."""

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import msgspec

HEADER: Final = 14
"""Bytes before the packet."""

MAX_FRAME: Final = 65535
"""The longest that passes, with its header."""

ARP, IPV4, IPV6 = b"\x08\x06", b"\x08\x00", b"\x86\xdd"
ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
_SCALE, _MAX_SCALE = 3, 14
_LITTLE: Final = 16  # of what the two have agreed to count windows in: from 16 bytes to 256 KiB

Address = IPv4Address | IPv6Address


class Packet(msgspec.Struct, frozen=True):
    """A packet of IP: `source` and `target` with their ports (for ICMP 0 and its type), `payload` is where what it carries begins.

    `end` is where it ends in its frame; what comes after is padding. `flags` are TCP's.
    """

    protocol: int
    source: Address
    target: Address
    source_port: int
    target_port: int
    payload: int
    end: int
    flags: int = 0


def packet(frame: bytes | memoryview) -> Packet | str:
    """Return the packet of IP in a frame, or why it is none that passes: options, fragments and extensions do not."""
    kind = bytes(frame[12:14])
    if kind == IPV4:
        return _packet4(frame)
    return _packet6(frame) if kind == IPV6 else "ethernet"


def _packet4(frame: bytes | memoryview) -> Packet | str:
    if len(frame) < HEADER + 20 or frame[14] >> 4 != 4:
        return "malformed"
    if frame[14] != 0x45:
        return "options"
    size, _, fragment = struct.unpack_from("!HHH", frame, 16)
    end = HEADER + size
    if size < 20 or end > len(frame):
        return "malformed"
    if fragment & 0x3FFF:
        return "fragment"
    source, target = IPv4Address(bytes(frame[26:30])), IPv4Address(bytes(frame[30:34]))
    return _carried(frame, frame[23], source, target, HEADER + 20, end)


def _packet6(frame: bytes | memoryview) -> Packet | str:
    if len(frame) < HEADER + 40 or frame[14] >> 4 != 6:
        return "malformed"
    (size,) = struct.unpack_from("!H", frame, 18)
    end = HEADER + 40 + size
    if end > len(frame):
        return "malformed"
    source, target = IPv6Address(bytes(frame[22:38])), IPv6Address(bytes(frame[38:54]))
    return _carried(frame, frame[20], source, target, HEADER + 40, end)


def _carried(frame: bytes | memoryview, protocol: int, source: Address, target: Address, at: int, end: int) -> Packet | str:
    """Return the packet with what the protocol that it carries says."""
    if protocol == TCP:
        return _segment(frame, source, target, at, end)
    if protocol == UDP:
        return _datagram(frame, source, target, at, end)
    if protocol in {ICMP, ICMPV6} and (protocol == ICMPV6) == (source.version == 6):
        return "malformed" if end < at + 8 else Packet(protocol, source, target, 0, frame[at], at + 4, end)
    return "protocol"


def _segment(frame: bytes | memoryview, source: Address, target: Address, at: int, end: int) -> Packet | str:
    if end < at + 20:
        return "malformed"
    length = (frame[at + 12] >> 4) * 4
    if length < 20 or at + length > end:
        return "malformed"
    first, second = struct.unpack_from("!HH", frame, at)
    return Packet(TCP, source, target, first, second, at + length, end, frame[at + 13])


def _datagram(frame: bytes | memoryview, source: Address, target: Address, at: int, end: int) -> Packet | str:
    if end < at + 8:
        return "malformed"
    first, second, length = struct.unpack_from("!HHH", frame, at)
    if length < 8 or at + length > end:
        return "malformed"
    return Packet(UDP, source, target, first, second, at + 8, at + length)


def window_scale(frame: bytes | memoryview, at: int, end: int) -> int:
    """Return by how many bits a segment's sender will shift its windows (RFC 7323); `at` is its header and `end` what it carries."""
    at += 20
    while at + 2 < end and frame[at]:
        if frame[at] == _SCALE:
            return min(frame[at + 2], _MAX_SCALE)
        at += 1 if frame[at] == 1 else max(frame[at + 1], 2)
    return 0


def narrow(frame: memoryview, at: int, window: int) -> None:
    """Write another window into a segment whose header is `at`, with its checksum (RFC 1624)."""
    _rewrite(frame, at, 14, window)


def push(frame: memoryview, at: int) -> None:
    """Set the flag that what a segment carries is to be given to its program now."""
    _rewrite(frame, at, 12, frame[at + 12] << 8 | frame[at + 13] | PSH)


def clear(frame: memoryview, at: int, flag: int) -> None:
    """Take a flag away from a segment."""
    _rewrite(frame, at, 12, (frame[at + 12] << 8 | frame[at + 13]) & ~flag)


def _rewrite(frame: memoryview, at: int, word: int, value: int) -> None:
    total = (~int.from_bytes(frame[at + 16 : at + 18]) & 0xFFFF) + (~int.from_bytes(frame[at + word : at + word + 2]) & 0xFFFF) + value
    total = (total & 0xFFFF) + (total >> 16)
    frame[at + word : at + word + 2] = value.to_bytes(2)
    frame[at + 16 : at + 18] = (~((total & 0xFFFF) + (total >> 16)) & 0xFFFF).to_bytes(2)


# -- frames of our own --------------------------------------------------------------------------------------------------


def checksum(data: bytes) -> int:
    """Return the Internet's checksum of `data`."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1])) + (data[-1] << 8 if len(data) & 1 else 0)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _frame(to: bytes, by: bytes, protocol: int, source: Address, target: Address, carried: bytes, at: int) -> bytes:
    """Return a frame with a packet; the checksum of what it carries goes to `at` there."""
    pseudo = source.packed + target.packed + struct.pack("!II", len(carried), protocol)
    cover = b"" if protocol == ICMP else pseudo
    total = checksum(cover + carried)
    carried = carried[:at] + struct.pack("!H", total or (0xFFFF if protocol == UDP else 0)) + carried[at + 2 :]
    if source.version == 6:
        head = struct.pack("!IHBB", 6 << 28, len(carried), protocol, 64) + source.packed + target.packed
        return to + by + IPV6 + head + carried
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(carried), 0, 0x4000, 64, protocol, 0) + source.packed + target.packed
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return to + by + IPV4 + head + carried


def arp(mac: bytes, source: IPv4Address, target: IPv4Address) -> bytes:
    """Return the frame by which `source` asks who `target` is."""
    asked = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + source.packed + bytes(6) + target.packed
    return b"\xff" * 6 + mac + ARP + asked


def link_local(mac: bytes) -> IPv6Address:
    """Return the address that an interface gives itself by its hardware address (RFC 4291, appendix A)."""
    return IPv6Address(b"\xfe\x80" + bytes(6) + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:])


def solicit(mac: bytes, source: IPv6Address, target: IPv6Address) -> bytes:
    """Return the frame by which `source` asks who `target` is (RFC 4861, 4.3)."""
    group = IPv6Address(b"\xff\2" + bytes(9) + b"\1\xff" + target.packed[13:])
    asked = struct.pack("!BBHI", 135, 0, 0, 0) + target.packed + b"\1\1" + mac
    return _frame(b"\x33\x33" + group.packed[12:], mac, ICMPV6, source, group, asked, 2)


def datagram(to: bytes, by: bytes, about: Packet, payload: bytes) -> bytes:
    """Return the frame that answers a datagram with `payload`."""
    head = struct.pack("!HHHH", about.target_port, about.source_port, 8 + len(payload), 0)
    return _frame(to, by, UDP, about.target, about.source, head + payload, 6)


def reset(to: bytes, by: bytes, about: Packet, frame: bytes | memoryview) -> bytes:
    """Return the frame that resets the connection which a segment of TCP belongs to (RFC 9293, 3.10.7.1)."""
    at = HEADER + (40 if about.source.version == 6 else 20)
    sequence, acknowledged = struct.unpack_from("!II", frame, at + 4)
    length = about.end - about.payload + bool(about.flags & SYN) + bool(about.flags & FIN)
    if about.flags & ACK:
        numbers, flags = (acknowledged, 0), RST
    else:
        numbers, flags = (0, (sequence + length) & 0xFFFFFFFF), RST | ACK
    segment = struct.pack("!HHIIBBHHH", about.target_port, about.source_port, *numbers, 0x50, flags, 0, 0, 0)
    return _frame(to, by, TCP, about.target, about.source, segment, 16)


def acknowledge(to: bytes, by: bytes, about: Packet, frame: bytes | memoryview) -> bytes:
    """Return the frame that acknowledges the acceptance of a connection, and lets a little be sent until its end says how much it takes."""
    at = HEADER + (40 if about.source.version == 6 else 20)
    sequence, acknowledged = struct.unpack_from("!II", frame, at + 4)
    numbers = acknowledged, (sequence + 1) & 0xFFFFFFFF
    segment = struct.pack("!HHIIBBHHH", about.target_port, about.source_port, *numbers, 0x50, ACK, _LITTLE, 0, 0)
    return _frame(to, by, TCP, about.target, about.source, segment, 16)


def unreachable(to: bytes, by: bytes, about: Packet, frame: bytes | memoryview) -> bytes:
    """Return the frame that says that a packet may not go where it was to."""
    six = about.source.version == 6
    kind, code, protocol = (1, 1, ICMPV6) if six else (3, 13, ICMP)
    quoted = bytes(frame[HEADER : min(about.end, HEADER + 512)])
    return _frame(to, by, protocol, about.target, about.source, struct.pack("!BBHI", kind, code, 0, 0) + quoted, 2)
