"""What a guest writes as Ethernet, against the filter before its network."""

from collections import Counter
from collections.abc import Hashable
from random import Random
from typing import Final

from tests.unit.network.wire import ME, ME6, RESOLVER, a_filter, query, reply, tcp, udp
from utilityvm.network.frames import ARP, ICMPV6, IPV6, packet
from utilityvm.network.policy import Policy, parse_rules

from .mutate import Form

RULES: Final = ("*.example.org:443", "10.1.0.0/16:80")


def _with_length(*frames: bytes) -> bytes:
    return b"".join(len(frame).to_bytes(2) + frame for frame in frames)


SEEDS: Final = (
    _with_length(tcp("1.1.1.1", 443), tcp("1.1.1.1", 443, flags=16, data=b"x" * 20), udp("2600::1", 443, b"y")),
    _with_length(udp(str(RESOLVER), 53, query("a.example.org")), tcp("9.9.9.9", 443), tcp("10.1.2.3", 80), tcp("127.0.0.1", 22)),
    _with_length(udp("224.0.0.251", 5353), tcp("169.254.169.254", 80), tcp("fd00:ec2::254", 80), udp("10.0.2.2", 53, query("x"))),
)


def size(data: memoryview) -> int:
    """The length of a frame with its two bytes before it."""
    return 2 + int.from_bytes(data[:2])


FORM: Final = Form(size, ((0, 2), (14, 2), (16, 1), (22, 2), (25, 1)))


def _flow(frame: memoryview) -> bytes:
    head = bytes(frame[:58])
    return head[20:21] + head[22:58] if head[12:14] == IPV6 else head[23:24] + head[26:38]


def check(data: bytes, chance: Random) -> Hashable:
    """Whatever passes goes, in the guest's name, where the policy lets it; a name that no rule has is not asked for."""
    free = chance.random() < 0.5
    one, policy = a_filter(*RULES, free=free), Policy(None if free else parse_rules(RULES))
    other, begun = a_filter(tcp=(80,)), set[bytes]()
    seen, at = Counter[str](), 0
    while at + 2 <= len(data):
        frame = memoryview(data)[at + 2 : at + size(memoryview(data)[at:])]
        at += 2 + max(len(frame), 1)
        verdict = one.outgoing(frame, 0.0)
        if verdict.asked is not None:
            assert policy.may_ask(verdict.asked.question.name)
            one.answered(verdict.asked, 1, reply(query(verdict.asked.question.name), ("", 1, bytes([9, 9, 9, 9])), number=1), 0.0)
        if verdict.passes and bytes(frame[12:14]) != ARP:
            found = packet(frame)
            if isinstance(found, str):  # of a flow that has begun only addresses and ports are looked at
                assert _flow(frame) in begun
            elif found.protocol != ICMPV6 or found.target_port not in {135, 136}:
                assert found.source in {ME, ME6}
                assert policy.refusal(found.target, found.target_port, found.protocol, ["a.example.org"]) == ""
                begun.add(_flow(frame))
        other.incoming(frame, 0.0)
        seen["passes" if verdict.passes else "asked" if verdict.asked else "refused"] += 1
    return (frozenset(seen), frozenset(one.refused))
