"""Questions for names and their answers, honest, cut off and lying."""

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilityvm.kit.errors import ProtocolError
from utilityvm.network import dns

from .wire import query, reply

ASKED = dns.read_question(query("WWW.example.org"))


def test_a_question_is_read_and_asked_anew_with_nothing_of_the_guests_but_the_name() -> None:
    asked = dns.read_question(
        query("WWW.Example.org", 28, extra=b"\0\0\x29\x10\0\0\0\0\0\0\x08" + b"\0\x0a\0\x04data", counts=(1, 0, 0, 1))
    )
    assert (asked.number, asked.name, asked.kind) == (7, "www.example.org", dns.AAAA)
    ours = dns.ask(asked, 0x1234)
    assert ours[:2] == b"\x12\x34"
    assert b"data" not in ours
    assert dns.read_question(ours).name == asked.name


@pytest.mark.parametrize(
    "message",
    [
        b"",
        query("a.b")[:11],
        query("a.b")[:-1],
        query("a.b", counts=(2, 0, 0, 0)),
        query("a.b", counts=(0, 0, 0, 0)),
        query("a.b", counts=(1, 1, 0, 0)),
        query("a.b", counts=(1, 0, 1, 0)),
        query("a.b", counts=(1, 0, 0, 2)),
        b"\0\7\x81\0" + query("a.b")[4:],
        b"\0\7\x28\0" + query("a.b")[4:],
        query("a.b")[:-1] + b"\3",
        query("a.b").replace(b"\1a", b"\xc0\x0c"),
        query("a.b").replace(b"\1a", b"\x41a"),
        query("a.b").replace(b"\1a", b"\1."),
        query("a.b").replace(b"\1a", b"\1\x80"),
        query("a.b").replace(b"\1a", b"\1\0"),
        query(".".join(["a" * 60] * 5)),
    ],
)
def test_what_is_no_plain_question_is_refused(message: bytes) -> None:
    with pytest.raises(ProtocolError):
        dns.read_question(message)


def test_an_answer_has_the_guests_number_again() -> None:
    told = reply(query("www.example.org"), ("", dns.A, bytes([1, 2, 3, 4])), number=99)
    assert dns.answer_to(ASKED, 99, told) == b"\0\7" + told[2:]


@pytest.mark.parametrize(
    "message",
    [
        reply(query("www.example.org"), number=98),
        reply(query("www.example.com"), number=99),
        reply(query("www.example.org", 28), number=99),
        query("www.example.org", number=99),
        reply(query("www.example.org"), number=99)[:15],
    ],
)
def test_what_answers_something_else_is_refused(message: bytes) -> None:
    with pytest.raises(ProtocolError):
        dns.answer_to(ASKED, 99, message)


def test_addresses_are_those_of_the_name_and_of_what_it_is_called_otherwise() -> None:
    cdn = b"\3cdn\3net\0"
    told = reply(
        query("www.example.org"),
        ("cdn.net", dns.A, bytes([1, 2, 3, 4])),
        ("", dns.CNAME, cdn),
        ("other.net", dns.A, bytes([6, 6, 6, 6])),
        ("", dns.AAAA, IPv6Address("2600::1").packed),
        ("", 16, b"\3txt"),
    )
    found = {record.value for record in dns.addresses(ASKED, told)}
    assert found == {IPv4Address("1.2.3.4"), "cdn.net", IPv6Address("2600::1")}


@pytest.mark.parametrize(
    "record",
    [("", dns.A, b"\1\2\3"), ("", dns.AAAA, b"\1\2\3\4"), ("", dns.CNAME, b"\xc0\xff"), ("", dns.CNAME, b"\xc0\x0c\xc0"[:1])],
)
def test_records_that_do_not_hold_together_are_refused(record: tuple[str, int, bytes]) -> None:
    with pytest.raises(ProtocolError):
        dns.addresses(ASKED, reply(query("www.example.org"), record))


def test_names_that_lead_in_a_circle_are_refused() -> None:
    told = reply(query("www.example.org"), ("", dns.CNAME, b"\xc0\x2d"))
    at = len(told) - 2
    with pytest.raises(ProtocolError, match="leads nowhere"):
        dns.addresses(ASKED, told[:at] + struct.pack("!H", 0xC000 | at))


def test_answers_are_cut_off_anywhere_without_harm() -> None:
    told = reply(query("www.example.org"), ("", dns.CNAME, b"\3cdn\3net\0"), ("cdn.net", dns.A, bytes([1, 2, 3, 4])))
    for size in range(len(told)):
        with pytest.raises(ProtocolError):
            dns.addresses(ASKED, told[:size])


def test_an_answer_of_very_many_records_is_refused() -> None:
    with pytest.raises(ProtocolError, match="257 records"):
        dns.addresses(ASKED, reply(query("www.example.org"), *[("", dns.A, bytes(4))] * 257))


def test_a_refusal_answers_the_question() -> None:
    refused = dns.refuse(ASKED, dns.REFUSED)
    assert refused[:2] == b"\0\7"
    assert refused[3] & 15 == dns.REFUSED
    assert dns.answer_to(ASKED, 7, refused) == refused


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(message: bytes) -> None:
    for read in (dns.read_question, lambda data: dns.answer_to(ASKED, 7, data), lambda data: dns.addresses(ASKED, data)):
        try:
            read(message)
        except ProtocolError:
            continue
