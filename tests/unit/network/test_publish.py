"""Ports that are published: how they are asked for, and whether they can be had."""

import socket

import pytest

from utilityvm.kit.errors import Exists, HostError, InvalidOptions
from utilityvm.network.publish import MAX_PUBLISHED, Published, must_be_free, parse_published

from .wire import NOWHERE


def test_ports_are_read_in_all_their_forms() -> None:
    assert parse_published(["8080:80", f"{NOWHERE}:53:53/udp", "[::1]:5-6:7-8/tcp"]) == (
        Published("127.0.0.1", 8080, 80),
        Published(NOWHERE, 53, 53, "udp"),
        Published("::1", 5, 7),
        Published("::1", 6, 8),
    )
    assert list(map(str, parse_published(["1:2/udp", "[::1]:3:4"]))) == ["127.0.0.1:1 -> 2/udp", "[::1]:3 -> 4/tcp"]


def test_a_port_is_reached_at_an_address_that_a_url_can_have() -> None:
    ports = parse_published(["8080:80", f"{NOWHERE}:81:80", "[::]:82:80", "[::1]:83:80", "192.0.2.1:84:80"])
    assert [port.address for port in ports] == ["127.0.0.1:8080", "127.0.0.1:81", "[::1]:82", "[::1]:83", "192.0.2.1:84"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not"),
        ("80", "is not"),
        ("a:b", "is not"),
        ("localhost:1:2", "no address of this host"),
        ("1.2.3:1:2", "no address of this host"),
        ("0:80", "no range"),
        ("80:65536", "no range"),
        ("9-8:1-2", "no range"),
        ("1-3:1-2", "different lengths"),
        ("1:2/sctp", "is not"),
        ("::1:1:2", "is not"),
    ],
)
def test_what_is_no_port_is_refused_by_what_is_wrong(text: str, why: str) -> None:
    with pytest.raises(InvalidOptions, match=why) as caught:
        parse_published(["1:1", text])
    assert caught.value.problems[0].path == "$.publish[1]"


def test_a_port_of_the_host_is_given_once_and_there_are_not_too_many() -> None:
    with pytest.raises(InvalidOptions, match="given twice"):
        parse_published(["80:1", "79-81:1-3"])
    assert len(parse_published(["80:1", "80:1/udp"])) == 2
    with pytest.raises(InvalidOptions, match=f"1025 ports: at most {MAX_PUBLISHED}"):
        parse_published(["1-1025:1-1025"])


@pytest.mark.parametrize(("kind", "protocol"), [(socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")])
def test_a_port_that_something_has_is_told_by_its_number(kind: int, protocol: str) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if protocol == "tcp":
            taken.listen(1)
        port = taken.getsockname()[1]
        with pytest.raises(Exists, match=f"port {port}/{protocol} of 127.0.0.1 cannot be published: Address already in use"):
            must_be_free([Published("127.0.0.1", port, 1, protocol)])
    must_be_free([Published("127.0.0.1", port, 1, protocol)])


def test_an_address_that_is_not_the_hosts_is_told() -> None:
    with pytest.raises(HostError, match="Cannot assign requested address"):
        must_be_free([Published("8.8.8.8", 8080, 80)])
    must_be_free([Published("::1", 0, 80)])
