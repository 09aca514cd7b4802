"""What leaves a guest and what does not, frame by frame, whoever wrote it."""

import struct
from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilityvm.network import dns, frames
from utilityvm.network.filter import LONGEST, MAX_FLOWS, MAX_NAMES, MAX_PINNED, SHORTEST, Asked, Filter, Place
from utilityvm.network.frames import ICMP, ICMPV6, TCP, UDP, checksum, packet
from utilityvm.network.policy import Policy, parse_rules

from .wire import ACK, GATEWAY, MAC, ME, NOWHERE, RESOLVER, a_filter, ip, out, passes, query, reply, tcp, udp

PUBLIC, PUBLIC6 = "1.1.1.1", "2600::1"


def asked(one: Filter, name: str, kind: int = 1, now: float = 0) -> Asked:
    verdict = out(one, udp(str(RESOLVER), 53, query(name, kind)), now)
    assert verdict.asked is not None
    return verdict.asked


def tell(one: Filter, name: str, *addresses: str, seconds: int = 60, now: float = 0) -> bytes:
    """Let a name be asked for and answered; return what the guest is told."""
    kind = dns.AAAA if ":" in "".join(addresses) else dns.A
    question = asked(one, name, kind, now)
    records = [("", kind, ip_address(address).packed) for address in addresses]
    return one.answered(question, 9, reply(query(name, kind), *records, number=9, seconds=seconds), now)


def said(frame: bytes) -> bytes:
    """The payload of a datagram for the guest, whose frame must be sound."""
    found = packet(frame)
    assert not isinstance(found, str)
    assert (found.source, found.source_port, found.target, found.target_port) == (RESOLVER, 53, ME, 40_000)
    sound(frame)
    return frame[found.payload : found.end]


def sound(frame: bytes) -> None:
    """Check the checksums of a frame that we wrote, and whom it is for."""
    assert frame[:12] == MAC + GATEWAY
    found = packet(frame)
    assert not isinstance(found, str)
    at = 54 if found.source.version == 6 else 34
    carried = frame[at : found.end]
    pseudo = found.source.packed + found.target.packed + struct.pack("!II", len(carried), found.protocol)
    assert checksum((b"" if found.protocol == ICMP else pseudo) + carried) == 0
    if found.source.version == 4:
        assert checksum(frame[14:34]) == 0


# -- what passes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        tcp(PUBLIC, 443),
        udp(PUBLIC, 443, b"x"),
        tcp(PUBLIC6, 443),
        udp(PUBLIC6, 443),
        ip(PUBLIC, ICMP, b"\x08" + bytes(7)),
        ip(PUBLIC6, ICMPV6, b"\x80" + bytes(7)),
    ],
)
def test_what_goes_to_a_public_address_passes(frame: bytes) -> None:
    one = a_filter(free=True)
    assert passes(one, frame)
    assert passes(one, frame + bytes(9))  # padding
    assert one.refused.total() == 0


def test_addresses_of_hardware_are_asked_for_and_told_in_the_guests_own_name_only() -> None:
    one = a_filter(free=True)
    assert passes(one, frames.arp(MAC, ME, IPv4Address("10.0.2.2")))
    assert passes(one, frames.arp(MAC, IPv4Address(NOWHERE), ME))
    assert not passes(one, frames.arp(MAC, IPv4Address("10.0.2.2"), ME))
    assert not passes(one, frames.arp(MAC, ME, ME)[:41])
    assert not passes(one, frames.arp(MAC, ME, ME).replace(b"\x08\x00\x06\x04", b"\x86\xdd\x06\x04"))
    neighbour = b"\x87\0\0\0\0\0\0\0" + bytes(16)
    assert all(passes(one, ip("ff02::1:ff00:2", ICMPV6, neighbour, source=source)) for source in ("fd00::15", "fe80::1", "::"))
    assert not passes(one, ip("ff02::1:ff00:2", ICMPV6, neighbour, source="fd00::2"))
    assert one.refused == {"source": 2, "malformed": 2}


# -- what does not --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (tcp("10.0.0.1", 80), "closed"),
        (tcp("10.0.2.2", 80), "closed"),
        (tcp("127.0.0.1", 80), "never"),
        (tcp(NOWHERE, 80), "never"),
        (udp("169.254.169.254", 80), "closed"),
        (tcp("fd00:ec2::254", 80), "closed"),
        (tcp("::1", 80), "never"),
        (tcp("::ffff:127.0.0.1", 80), "never"),
        (tcp("64:ff9b::7f00:1", 80), "closed"),
        (udp("224.0.0.251", 5353), "group"),
        (udp("255.255.255.255", 67, own=68, source=NOWHERE), "group"),
        (udp("ff02::fb", 5353), "group"),
        (tcp(PUBLIC, 80, source="10.0.2.16"), "source"),
        (tcp(PUBLIC, 80, source="127.0.0.1"), "source"),
        (tcp(PUBLIC6, 80, source="fe80::15"), "source"),
        (tcp(PUBLIC, 80, options=b"\x83\x07\x04\x0a\0\0\1\0"), "options"),
        (tcp(PUBLIC, 80, fragment=0x2000), "fragment"),
        (tcp(PUBLIC, 80, fragment=0x0003), "fragment"),
        (udp(PUBLIC, 80, fragment=0x6000), "fragment"),
        (ip(PUBLIC6, 44, b"\x06\0\0\1\0\0\0\0" + bytes(20)), "protocol"),
        (ip(PUBLIC6, 0, b"\x06\0" + bytes(26)), "protocol"),
        (ip(PUBLIC, 47, bytes(20)), "protocol"),
        (ip(PUBLIC, 4, tcp("10.0.0.1", 80)[14:]), "protocol"),
        (ip(PUBLIC, 41, bytes(40)), "protocol"),
        (ip(PUBLIC, ICMPV6, bytes(8)), "protocol"),
        (ip(PUBLIC, ICMP, b"\x05" + bytes(7)), "protocol"),
        (ip(PUBLIC6, ICMPV6, b"\x86" + bytes(7)), "protocol"),
        (ip("10.0.0.1", ICMP, b"\x08" + bytes(7)), "closed"),
        (ip(PUBLIC, TCP, bytes(19)), "malformed"),
        (ip(PUBLIC, TCP, bytes(12) + b"\x40" + bytes(7)), "malformed"),
        (ip(PUBLIC, TCP, bytes(12) + b"\xf0" + bytes(7)), "malformed"),
        (ip(PUBLIC, UDP, bytes(7)), "malformed"),
        (ip(PUBLIC, UDP, struct.pack("!HHHH", 1, 2, 7, 0)), "malformed"),
        (ip(PUBLIC, UDP, struct.pack("!HHHH", 1, 2, 9, 0)), "malformed"),
        (ip(PUBLIC, ICMP, b"\x08"), "malformed"),
        (tcp(PUBLIC, 80, size=19), "malformed"),
        (tcp(PUBLIC, 80, size=2000), "malformed"),
        (tcp(PUBLIC6, 80, size=2000), "malformed"),
        (tcp(PUBLIC, 80)[:30], "malformed"),
        (tcp(PUBLIC6, 80)[:50], "malformed"),
        (MAC + GATEWAY + b"\x81\x00\x00\x05" + tcp(PUBLIC, 80)[12:], "ethernet"),
        (MAC + GATEWAY + b"\x88\xa8\x00\x05" + tcp(PUBLIC, 80)[12:], "ethernet"),
        (MAC + GATEWAY + b"\x00\x20" + bytes(32), "ethernet"),
        (MAC + GATEWAY + b"\x08\x00" + b"\x65" + tcp(PUBLIC, 80)[15:], "malformed"),
        (MAC + GATEWAY + b"\x86\xdd" + b"\x45" + tcp(PUBLIC6, 80)[15:], "malformed"),
        (b"\x33" + tcp(PUBLIC, 80)[1:14] + b"\x46" + tcp(PUBLIC, 80)[15:], "group"),
        (b"", "size"),
        (bytes(13), "size"),
        (bytes(65536), "size"),
        (tcp(str(RESOLVER), 53), "resolver"),
        (tcp(str(RESOLVER), 853), "resolver"),
        (udp(str(RESOLVER), 80), "resolver"),
        (udp(str(RESOLVER), 53, b"no question"), "question"),
        (udp(str(RESOLVER), 53, query("a.b")[:-1]), "question"),
    ],
)
def test_what_may_not_leave_is_refused_and_counted_by_the_reason(frame: bytes, why: str) -> None:
    one = a_filter(free=True)
    assert not passes(one, frame)
    assert one.refused == {why: 1}
    assert one.last.startswith(f"{why}: ") or why == "group"


def test_a_guest_without_ipv6_sends_none_of_it() -> None:
    one = Filter(Place(MAC, GATEWAY, ME, None, RESOLVER), Policy(), {})
    assert not passes(one, tcp(PUBLIC6, 80))
    assert not passes(one, ip("ff02::1:ff00:2", ICMPV6, b"\x87" + bytes(23), source="fe80::1"))
    assert one.refused == {"source": 2}


def test_who_is_refused_is_told_at_once() -> None:
    one = a_filter(free=True)
    for target in ("10.0.0.1", "fd99::1"):
        syn = out(one, tcp(target, 80)).reply
        found = packet(syn)
        assert not isinstance(found, str)
        assert (str(found.source), found.source_port, found.target_port, found.flags) == (target, 80, 40_000, frames.RST | frames.ACK)
        assert struct.unpack_from("!II", syn, found.payload - 16) == (0, 1001)
        sound(syn)
        late = out(one, tcp(target, 80, flags=ACK, data=b"abc")).reply
        assert struct.unpack_from("!II", late, found.payload - 16) == (0, 0)
        assert late[found.payload - 7] == frames.RST
        sound(late)
        assert out(one, tcp(target, 80, flags=frames.RST)).reply == b""
        gone = out(one, udp(target, 80, b"data")).reply
        at = 54 if ":" in target else 34
        assert gone[at : at + 2] == (b"\1\1" if ":" in target else b"\3\x0d")
        assert gone[at + 8 :] == udp(target, 80, b"data")[14:]
        sound(gone)


# -- flows ----------------------------------------------------------------------------------------------------------


def test_a_flow_that_passes_is_remembered_and_its_fragments_and_strangers_are_not_it() -> None:
    one = a_filter("1.1.1.1:443")
    assert passes(one, tcp(PUBLIC, 443))
    assert passes(one, tcp(PUBLIC, 443, flags=ACK, data=bytes(60_000)))
    assert not passes(one, tcp(PUBLIC, 443, fragment=0x2000))
    assert not passes(one, tcp(PUBLIC, 443, source="10.0.2.16"))
    assert not passes(one, tcp(PUBLIC, 444))
    assert not passes(one, udp(PUBLIC, 53))
    assert not passes(one, tcp(PUBLIC, 443, flags=ACK) + bytes(65_536))


def test_no_more_flows_are_remembered_than_the_bound_and_old_ones_are_judged_anew() -> None:
    one = a_filter(free=True)
    for number in range(MAX_FLOWS + 10):
        assert passes(one, udp(f"1.1.{number >> 8 & 255}.{number & 255}", 1000 + (number >> 16)))
    assert len(one._flows) == MAX_FLOWS
    assert passes(one, udp("1.1.0.0", 1000))


def test_a_narrower_policy_ends_what_has_begun_and_a_wider_one_does_not() -> None:
    one = a_filter("1.1.1.1", "*.example.org")
    tell(one, "a.example.org", "9.9.9.9", seconds=1)
    late = SHORTEST * 2
    assert passes(one, tcp(PUBLIC, 443))
    assert passes(one, tcp("9.9.9.9", 443))
    one.change(Policy(parse_rules(["*.example.org", "8.8.8.8"])))
    assert not passes(one, tcp(PUBLIC, 443, flags=ACK))
    assert passes(one, tcp("9.9.9.9", 443, flags=ACK), late)
    assert passes(one, tcp("8.8.8.8", 443))
    one.change(Policy())
    assert passes(one, tcp(PUBLIC, 443))


def inbound(protocol: int, port: int, *, flags: int = 2, peer: str = "10.0.2.2") -> memoryview:
    make = {TCP: lambda: tcp(str(ME), port, flags=flags, own=5555, source=peer), UDP: lambda: udp(str(ME), port, own=5555, source=peer)}
    return memoryview(make[protocol]())


def test_who_reaches_a_published_port_is_answered_and_nobody_else() -> None:
    one = a_filter(tcp=(80,), udp=(53,))
    answer = tcp("10.0.2.2", 5555, flags=18, own=80)
    assert not passes(one, answer)
    one.incoming(inbound(TCP, 80, flags=ACK), 0.0)  # no beginning
    one.incoming(inbound(TCP, 81), 0.0)  # not published
    one.incoming(inbound(UDP, 80), 0.0)
    one.incoming(memoryview(b"short"), 0.0)
    assert not passes(one, answer)
    one.incoming(inbound(TCP, 80), 0.0)
    assert passes(one, answer)
    assert not passes(one, tcp("10.0.2.2", 5556, own=80))
    assert not passes(one, tcp("10.0.2.2", 5555, own=81))
    one.incoming(inbound(UDP, 53), 0.0)
    assert passes(one, udp("10.0.2.2", 5555, own=53))
    one.change(Policy(()))
    assert passes(one, answer)


def test_an_accepted_connection_is_acknowledged_once_so_that_a_server_may_speak_first() -> None:
    one = a_filter(tcp=(80,))
    one.incoming(inbound(TCP, 80), 0.0)
    verdict = out(one, tcp("10.0.2.2", 5555, flags=18, own=80))
    assert verdict.passes
    found = packet(verdict.greeting)
    assert not isinstance(found, str)
    assert (str(found.source), found.source_port, found.target_port, found.flags) == ("10.0.2.2", 5555, 80, ACK)
    assert struct.unpack_from("!II", verdict.greeting, 38) == (0, 1001)
    sound(verdict.greeting)
    assert out(one, tcp("10.0.2.2", 5555, flags=ACK, own=80)).greeting == b""
    assert not passes(one, tcp("10.0.2.2", 5555, flags=18, own=80, size=19))


def test_published_ports_are_answered_by_ipv6_too() -> None:
    one = a_filter(tcp=(80,))
    one.incoming(memoryview(tcp("fd00::15", 80, own=5555, source="fe80::1")), 0.0)
    assert passes(one, tcp("fe80::1", 5555, flags=18, own=80))


# -- names ----------------------------------------------------------------------------------------------------------


def test_a_name_that_no_rule_has_is_refused_here_and_never_asked_for() -> None:
    one = a_filter("*.example.org", "1.2.3.4")
    for name in ("example.org", "secret-data.evil.net", "a.example.org.evil.net", ""):
        verdict = out(one, udp(str(RESOLVER), 53, query(name)))
        assert verdict.asked is None
        assert said(verdict.reply)[3] & 15 == dns.REFUSED
    assert one.refused == {"name": 4}
    assert asked(one, "A.Example.ORG").question.name == "a.example.org"


def test_with_rules_only_addresses_are_asked_for() -> None:
    one = a_filter("*.example.org")
    for kind in (5, 15, 16, 65, 255):
        verdict = out(one, udp(str(RESOLVER), 53, query("a.example.org", kind)))
        assert verdict.asked is None
        assert said(verdict.reply)[3] & 15 == dns.NO_ERROR
    assert asked(a_filter(free=True), "a.example.org", 16).question.kind == 16


def test_a_domain_is_reached_at_what_it_was_told_and_as_long_as_that_holds() -> None:
    one = a_filter("*.example.org:443", "10.0.0.0/8")
    assert not passes(one, tcp("9.9.9.9", 443))
    answer = said(tell(one, "a.example.org", "9.9.9.9", "9.9.9.8", seconds=300))
    assert answer[:2] == b"\0\7"
    assert passes(one, tcp("9.9.9.9", 443, own=1), 299)
    assert not passes(one, tcp("9.9.9.9", 80, own=2), 1)
    assert not passes(one, tcp("9.9.9.9", 443, own=3), 301)
    assert passes(one, tcp("9.9.9.9", 443, own=1, flags=ACK), 301)  # a connection that has begun
    tell(one, "a.example.org", "9.9.9.7", seconds=0)
    assert passes(one, tcp("9.9.9.7", 443, own=4), SHORTEST - 1)
    tell(one, "a.example.org", "9.9.9.6", seconds=1 << 31)
    assert not passes(one, tcp("9.9.9.6", 443, own=5), LONGEST + 1)
    tell(one, "a.example.org", PUBLIC6)
    assert passes(one, tcp(PUBLIC6, 443))


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.1.1", "169.254.169.254", "192.168.1.1", NOWHERE, "::1", "fd00::1", "::ffff:8.8.8.8"]
)
def test_an_answer_with_a_closed_address_is_not_told(address: str) -> None:
    one = a_filter("*.example.org")
    both = ("2600::1", address) if ":" in address else ("9.9.9.9", address)
    answer = said(tell(one, "a.example.org", *both))
    assert answer[3] & 15 == dns.REFUSED
    assert answer[6:12] == bytes(6)
    assert not passes(one, tcp(both[0], 443))
    assert one.refused["rebinding"] == 1


def test_an_answer_with_an_address_that_a_rule_opens_is_told() -> None:
    one = a_filter("db.corp.example", "10.1.0.0/16:5432")
    assert said(tell(one, "db.corp.example", "10.1.1.1"))[3] & 15 == 0
    assert passes(one, tcp("10.1.1.1", 5432))
    assert not passes(one, tcp("10.1.1.1", 22))


def test_no_answer_and_one_that_cannot_be_read_are_told_as_a_failure() -> None:
    one = a_filter("*.example.org")
    question = asked(one, "a.example.org")
    for message in (b"", b"garbage", reply(query("b.example.org"), number=9), reply(query("a.example.org"), ("", 1, b"x"), number=9)):
        assert said(one.answered(question, 9, message, 0))[3] & 15 == dns.SERVER_FAILURE
    assert one.refused == {"answer": 3}


def test_no_more_addresses_are_remembered_than_the_bound() -> None:
    one = a_filter("*.example.org")
    for number in range(0, MAX_PINNED + 100, 100):
        tell(one, f"n{number}.example.org", *(f"9.9.{n >> 8}.{n & 255}" for n in range(number, number + 100)))
    assert len(one._pins) == MAX_PINNED
    for number in range(MAX_NAMES + 5):
        tell(one, f"m{number}.example.org", "8.8.8.8")
    assert len(one._pins[IPv4Address("8.8.8.8")]) == MAX_NAMES


# -- anything at all ------------------------------------------------------------------------------------------------

HEADS = st.sampled_from([b"", *(MAC + GATEWAY + kind for kind in (b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x81\x00"))])
SEEDS = st.sampled_from([tcp(PUBLIC, 443), udp(str(RESOLVER), 53, query("a.b")), tcp(PUBLIC6, 1), udp("10.0.0.1", 9), tcp("127.0.0.1", 22)])


@given(HEADS, st.binary(max_size=200))
def test_any_frame_is_judged(head: bytes, body: bytes) -> None:
    one = a_filter(free=True)
    out(one, head + body)
    one.incoming(memoryview(head + body), 0.0)


@given(SEEDS, st.lists(st.tuples(st.integers(12, 60), st.integers(0, 255)), max_size=4))
def test_whatever_passes_goes_to_a_public_address_in_the_guests_name(frame: bytes, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(frame)
    for at, value in changes:
        changed[at % len(changed)] = value
    one = a_filter(free=True)
    if passes(one, bytes(changed)) and bytes(changed[12:14]) != frames.ARP:
        found = packet(bytes(changed))
        assert not isinstance(found, str)
        if found.protocol != ICMPV6 or found.target_port not in {135, 136}:
            assert Policy().refusal(found.target, found.target_port, found.protocol) == ""
            assert str(found.source) in {str(ME), "fd00::15"}


# -- names that the owner has given addresses -----------------------------------------------------------------------


def test_a_name_with_an_address_of_the_owners_is_answered_at_once_under_every_policy() -> None:
    for one in (a_filter(free=True, hosts=("Db.internal:10.1.2.3", "db.internal:fd00::3")), a_filter(hosts=("db.internal:10.1.2.3",))):
        verdict = out(one, udp(str(RESOLVER), 53, query("DB.internal")))
        assert verdict.asked is None
        answer = said(verdict.reply)
        assert [record.value for record in dns.addresses(dns.read_question(query("db.internal")), answer)] == [IPv4Address("10.1.2.3")]
        assert answer[:4] == b"\0\7\x81\x80"
        assert one.refused.total() == 0


def test_such_a_name_has_the_addresses_of_the_family_that_is_asked_for_and_no_other_records() -> None:
    one = a_filter(free=True, hosts=("a:10.1.2.3", "a:fd00::3", "a:10.1.2.4"))
    for kind, values in ((dns.A, ["10.1.2.3", "10.1.2.4"]), (dns.AAAA, ["fd00::3"]), (16, [])):
        answer = said(out(one, udp(str(RESOLVER), 53, query("a", kind))).reply)
        assert [str(record.value) for record in dns.addresses(dns.read_question(query("a", kind)), answer)] == values


def test_such_a_name_opens_no_address_that_is_closed_and_a_rule_for_it_a_public_one() -> None:
    one = a_filter("closed.test", "open.test:80", hosts=("closed.test:10.1.2.3", f"open.test:{PUBLIC}"))
    for name in ("closed.test", "open.test"):
        assert out(one, udp(str(RESOLVER), 53, query(name))).reply
    assert not passes(one, tcp("10.1.2.3", 80))
    assert passes(one, tcp(PUBLIC, 80))
    assert not passes(one, tcp(PUBLIC, 81))
