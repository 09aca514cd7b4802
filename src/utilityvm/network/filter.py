"""What of a guest's frames leaves it: each is passed, refused, answered, or is a question for a name. Pure, but for the time it is told.

A flow that may pass is remembered by its addresses and ports, so that all but its first frame cost one look into a table.
"""

from collections import Counter
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Final, final

import msgspec
from msgspec.structs import replace

from utilityvm.kit.errors import ProtocolError
from utilityvm.network import dns
from utilityvm.network.dns import Question
from utilityvm.network.ends import Ends
from utilityvm.network.frames import (
    ARP,
    FIN,
    HEADER,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    MAX_FRAME,
    RST,
    SYN,
    TCP,
    UDP,
    Address,
    Packet,
    acknowledge,
    clear,
    datagram,
    packet,
    reset,
    unreachable,
    window_scale,
)
from utilityvm.network.knocks import Knocks
from utilityvm.network.policy import Hosts, Policy
from utilityvm.network.windows import ROOM, Windows

MAX_FLOWS: Final = 16_384
MAX_PINNED: Final = 4096
"""Addresses that answers have named; the oldest go first."""
MAX_NAMES: Final = 16
"""Names for one address."""

SHORTEST, LONGEST = 30.0, 3600.0
"""Seconds that an answer is believed at least and at most: a program needs a while to use what it was told."""

DNS_PORT: Final = 53
_KEY: Final = 68  # bytes of a frame in which all lies that the table of flows needs
_ECHO: Final = {ICMP: 8, ICMPV6: 128}
_NEIGHBOURS: Final = {135, 136}
_BEGINNINGS: Final = {bytes([flags]) for flags in range(256) if flags & 0x12 == 0x02}  # SYN and not ACK
_ACCEPTS: Final = 0x12  # SYN and ACK
_QUERY_KINDS: Final = {dns.A, dns.AAAA}


class Place(msgspec.Struct, frozen=True):
    """Who the guest is in its network, and who answers there: hardware addresses, its own addresses, its resolver's."""

    mac: bytes
    gateway_mac: bytes
    four: IPv4Address
    six: IPv6Address | None
    resolver: IPv4Address


class Asked(msgspec.Struct, frozen=True):
    """A question that is to be asked for the guest, and the datagram that it came in."""

    question: Question
    about: Packet


class Verdict(msgspec.Struct, frozen=True):
    """What becomes of a frame: it `passes`, and is answered with `reply`; or its question is to be asked. Otherwise it is dropped.

    A `greeting` is a reply for when passt has read what passes.
    """

    passes: bool = False
    reply: bytes = b""
    greeting: bytes = b""
    asked: Asked | None = None


PASS: Final = Verdict(passes=True)
DROP: Final = Verdict()


class _Flow(msgspec.Struct, frozen=True):
    """Why a flow passes: where it goes and the names that this address had. `inbound` ones were begun from outside.

    `scale` is by how many bits the guest's windows are shifted; negative: it was not seen to begin, and nobody knows.
    """

    address: Address
    port: int
    protocol: int
    names: tuple[str, ...] = ()
    inbound: bool = False
    scale: int = -1


@final
class Filter:
    """One guest's. `published` are the guest's ports that may be reached from outside, by protocol; `hosts` are names that are answered
    here, and may be asked for under every policy: what they are, a policy must open as any other address. `room` is how many bytes may be
    on their way to the guest at a time; what it tells others of its windows is narrowed to that, all connections together.

    `refused` counts what was refused, by the reason; `last` is what was refused last, for people. `knocks` are to be repeated.
    """

    def __init__(
        self, place: Place, policy: Policy, published: Mapping[int, frozenset[int]], hosts: Hosts | None = None, room: int = ROOM
    ) -> None:
        self._place, self._policy, self._published, self._hosts = place, policy, published, hosts or {}
        self._flows: dict[bytes, _Flow] = {}
        self._windows, self._ends, self.knocks = Windows(room), Ends(), Knocks()
        self._pins: dict[Address, dict[str, float]] = {}
        self.refused = Counter[str]()
        self.last = ""

    def change(self, policy: Policy) -> None:
        """Keep to another policy from now on, also with flows that have begun."""
        self._policy = policy
        self._flows = {
            key: flow
            for key, flow in self._flows.items()
            if flow.inbound or not policy.refusal(flow.address, flow.port, flow.protocol, flow.names)
        }

    def outgoing(self, frame: memoryview, now: float) -> Verdict:
        """Judge a frame of the guest's."""
        head = bytes(frame[:_KEY])
        kind = head[12:14]
        if kind == IPV4 and len(head) >= 38 and head[14] == 0x45 and not head[20] & 0x3F and not head[21]:
            key = head[23:24] + head[26:38]
        elif kind == IPV6 and len(head) >= 58:
            key = head[20:21] + head[22:58]
        else:
            key = b""
        flow = self._flows.get(key)
        if flow is not None and len(frame) <= MAX_FRAME:
            return self._segment(frame, key, flow, now) if flow.protocol == TCP else PASS
        return self._judge(frame, head, key, now)

    def incoming(self, frame: memoryview, now: float) -> None:
        """Take note of a frame for the guest: what answers a connection to a published port may leave."""
        head = bytes(frame[:_KEY])
        kind = head[12:14]
        if kind == IPV4 and len(head) >= 38 and head[14] == 0x45:
            protocol, at = head[23], 34
            key = head[23:24] + head[30:34] + head[26:30] + head[36:38] + head[34:36]
        elif kind == IPV6 and len(head) >= 58:
            protocol, at = head[20], 54
            key = head[20:21] + head[38:54] + head[22:38] + head[56:58] + head[54:56]
        else:
            return
        if protocol == TCP and len(frame) >= at + 20:
            self._ends.arrived(key, head[at + 13], now, carries=len(frame) > at + 20)
            if len(frame) > at + 20:
                self._windows.arrived(key, frame, at)
        port = int.from_bytes(head[at + 2 : at + 4])
        if port in self._published.get(protocol, ()) and (protocol == UDP or head[at + 13 : at + 14] in _BEGINNINGS):
            source = IPv4Address(head[26:30]) if kind == IPV4 else IPv6Address(head[22:38])
            self._remember(key, _Flow(source, int.from_bytes(head[at : at + 2]), protocol, inbound=True))
            if protocol == TCP:
                self.knocks.arrived(key, bytes(frame), now)

    def answered(self, asked: Asked, number: int, message: bytes, now: float) -> bytes:
        """Return the frame for the guest of an answer to its question, which was asked under `number`; ``b""`` is for no answer."""
        question = asked.question
        try:
            answer = dns.answer_to(question, number, message) if message else dns.refuse(question, dns.SERVER_FAILURE)
            if self._policy.rules is not None and not self._pin(question, answer, now):
                answer = dns.refuse(question, dns.REFUSED)
        except ProtocolError as error:
            self._count("answer", f"answer for {question.name}: {error}")
            answer = dns.refuse(question, dns.SERVER_FAILURE)
        return datagram(self._place.mac, self._place.gateway_mac, asked.about, answer)

    def _segment(self, frame: memoryview, key: bytes, flow: _Flow, now: float) -> Verdict:
        """Pass a segment of a connection that is known; let it ask for no more than there is room for, and not end its half too early."""
        at = 34 if flow.address.version == 4 else 54
        if len(frame) < at + 20:
            return PASS
        if flow.inbound:
            self.knocks.answered(key)
        if flow.inbound and frame[at + 13] == _ACCEPTS:
            return self._greet(frame, key, flow)
        if flow.scale >= 0 and not frame[at + 13] & SYN:
            self._windows.narrow(frame, at, flow.scale, now)
        if frame[at + 13] & FIN and not flow.inbound and self._ends.too_early(key, now, frame[at + 14] | frame[at + 15]):
            size = int.from_bytes(frame[16:18]) - 20 if at == 34 else int.from_bytes(frame[18:20])
            if size <= (frame[at + 12] >> 4) * 4:
                return DROP  # and not without its flag: passt takes an acknowledgement that says nothing new for a loss
            clear(frame, at, FIN)
        return PASS

    def _greet(self, frame: memoryview, key: bytes, flow: _Flow) -> Verdict:
        """Pass what answers a connection from outside, and acknowledge its acceptance.

        passt before 2024 does so only with its first data: a server that speaks first would wait for ever.
        """
        found = packet(frame)
        if isinstance(found, str):
            return self._drop(found, "an answer from a published port")
        self._flows[key] = replace(flow, scale=_scale(found, frame))
        return Verdict(passes=True, greeting=acknowledge(self._place.mac, self._place.gateway_mac, found, frame))

    def _judge(self, frame: memoryview, head: bytes, key: bytes, now: float) -> Verdict:
        if len(frame) > MAX_FRAME or len(frame) < HEADER:
            return self._drop("size", f"frame of {len(frame)} bytes")
        if head[12:14] == ARP:
            return self._neighbour(frame)
        found = packet(frame)
        if isinstance(found, str):
            group = head[12:14] in {IPV4, IPV6} and head[0] & 1
            return self._drop("group" if group else found, f"frame of type {head[12:14].hex()}")
        return self._packet(found, frame, key, now)

    def _packet(self, found: Packet, frame: memoryview, key: bytes, now: float) -> Verdict:
        place = self._place
        if found.protocol == ICMPV6 and found.target_port in _NEIGHBOURS:
            own = found.source == place.six or found.source.is_link_local or found.source.is_unspecified
            return PASS if own and place.six is not None else self._drop("source", f"neighbour {found.source}")
        if found.target.is_multicast or found.target == IPv4Address("255.255.255.255"):
            return self._drop("group", f"to {found.target}")
        if found.source != (place.four if found.source.version == 4 else place.six):
            return self._drop("source", f"from {found.source}")
        if found.target == place.resolver:
            return self._resolver(found, frame, now)
        return self._flow(found, frame, key, now)

    def _neighbour(self, frame: memoryview) -> Verdict:
        """Pass what asks for, or tells, a hardware address by ARP, in the guest's own name."""
        sound = len(frame) >= HEADER + 28 and bytes(frame[14:20]) == b"\0\x01\x08\0\x06\x04"
        own = sound and bytes(frame[28:32]) in {self._place.four.packed, bytes(4)}
        return PASS if own else self._drop("source" if sound else "malformed", "ARP")

    def _resolver(self, found: Packet, frame: memoryview, now: float) -> Verdict:
        """Judge what is for the guest's resolver, which answers datagrams at its port and nothing else."""
        if found.protocol != UDP or found.target_port != DNS_PORT:
            return self._refuse("resolver", found, frame)
        try:
            question = dns.read_question(bytes(frame[found.payload : found.end]))
        except ProtocolError as error:
            return self._drop("question", str(error))
        if (known := self._hosts.get(question.name)) is not None:
            for address in known:
                self._pin_one(address, question.name, now + LONGEST)
            return self._say(found, dns.tell(question, known, int(SHORTEST)))
        if not self._policy.may_ask(question.name):
            self._count("name", f"name {question.name}")
            return self._say(found, dns.refuse(question, dns.REFUSED))
        if self._policy.rules is not None and question.kind not in _QUERY_KINDS:
            return self._say(found, dns.refuse(question, dns.NO_ERROR))
        return Verdict(asked=Asked(question, found))

    def _say(self, found: Packet, answer: bytes) -> Verdict:
        return Verdict(reply=datagram(self._place.mac, self._place.gateway_mac, found, answer))

    def _flow(self, found: Packet, frame: memoryview, key: bytes, now: float) -> Verdict:
        if found.protocol in _ECHO and found.target_port != _ECHO[found.protocol]:
            return self._drop("protocol", f"ICMP of type {found.target_port} to {found.target}")
        names = tuple(name for name, until in self._pins.get(found.target, {}).items() if until > now)
        if why := self._policy.refusal(found.target, found.target_port, found.protocol, names):
            return self._refuse(why, found, frame)
        if found.protocol in {TCP, UDP}:
            self._remember(key, _Flow(found.target, found.target_port, found.protocol, names, scale=_scale(found, frame)))
        return PASS

    def _refuse(self, why: str, found: Packet, frame: memoryview) -> Verdict:
        """Refuse a packet, and tell its sender, who would otherwise wait."""
        word = {TCP: "tcp", UDP: "udp"}.get(found.protocol, "icmp")
        self._count(why, f"{word} {found.target} port {found.target_port}")
        to, by = self._place.mac, self._place.gateway_mac
        if found.protocol == TCP:
            return DROP if found.flags & RST else Verdict(reply=reset(to, by, found, frame))
        return Verdict(reply=unreachable(to, by, found, frame))

    def _drop(self, why: str, what: str) -> Verdict:
        self._count(why, what)
        return DROP

    def _count(self, why: str, what: str) -> None:
        self.refused[why] += 1
        if why != "group":
            self.last = f"{why}: {what}"

    def _remember(self, key: bytes, flow: _Flow) -> None:
        if len(self._flows) >= MAX_FLOWS and key not in self._flows:
            del self._flows[next(iter(self._flows))]
        self._flows[key] = flow

    def _pin(self, question: Question, answer: bytes, now: float) -> bool:
        """Take note of the addresses in an answer; refuse it when one is closed: a name is not a way around that."""
        records = dns.addresses(question, answer)
        told = [(record.value, record.seconds) for record in records if not isinstance(record.value, str)]
        for address, _ in told:
            if not self._policy.may_be_told(address):
                self._count("rebinding", f"{question.name} is {address}")
                return False
        for address, seconds in told:
            self._pin_one(address, question.name, now + min(max(seconds, SHORTEST), LONGEST))
        return True

    def _pin_one(self, address: Address, name: str, until: float) -> None:
        names = self._pins.pop(address, {})
        names.pop(name, None)
        if len(names) >= MAX_NAMES:
            del names[next(iter(names))]
        if len(self._pins) >= MAX_PINNED:
            del self._pins[next(iter(self._pins))]
        self._pins[address] = {**names, name: until}


def _scale(found: Packet, frame: memoryview) -> int:
    """Return the scale of the guest's windows that a segment tells, if it begins a connection."""
    if not found.flags & SYN:
        return -1
    return window_scale(frame, HEADER + (40 if found.source.version == 6 else 20), found.payload)
