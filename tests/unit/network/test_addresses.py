"""The host's own networks, as the kernel tells them."""

import struct
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilityvm.kit.errors import HostError
from utilityvm.network.addresses import HostNetworks, parse


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def message(kind: int, body: bytes = b"") -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def address(length: int, *attributes: bytes) -> bytes:
    return message(20, struct.pack("=BBBBI", 2, length, 0, 0, 1) + b"".join(attributes))


def test_an_address_is_told_with_its_network_and_a_peer_with_its_own() -> None:
    own, peer = ip_address("10.1.2.3").packed, ip_address("10.9.0.1").packed
    six = ip_address("2600::7").packed
    data = (
        address(24, attribute(2, own), attribute(1, own))
        + address(32, attribute(2, own), attribute(1, peer))
        + address(64, attribute(1, six))
    )
    assert parse(data) == (
        [ip_network(text) for text in ("10.1.2.3", "10.1.2.0/24", "10.1.2.3", "10.9.0.1", "2600::7", "2600::/64")],
        False,
    )
    assert parse(message(3)) == ([], True)
    assert parse(address(24)) == ([], False)


@pytest.mark.parametrize(
    "data",
    [
        message(2, bytes(4)),
        struct.pack("=IHHII", 8, 20, 0, 0, 0),
        struct.pack("=IHHII", 99, 20, 0, 0, 0),
        message(20),
        address(33, attribute(1, bytes(4))),
    ],
)
def test_what_the_kernel_refuses_or_nobody_understands_is_an_error(data: bytes) -> None:
    with pytest.raises(HostError):
        parse(data)


ATTRIBUTES = st.builds(attribute, st.sampled_from([1, 2, 3]), st.binary(max_size=20))
HEADS = st.binary(min_size=8, max_size=8)
BODIES = st.binary(max_size=40) | st.builds(lambda head, all_: head + b"".join(all_), HEADS, st.lists(ATTRIBUTES))
MESSAGES = st.binary(max_size=40) | st.builds(message, st.sampled_from([2, 3, 20]), BODIES)


@given(st.lists(MESSAGES).map(b"".join))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        nets, _ = parse(data)
    except HostError:
        return
    assert len(nets) <= len(data) // 16  # two of a message, which has 32 bytes at least


def test_this_hosts_loopback_is_told() -> None:
    networks = HostNetworks()
    assert ip_network("127.0.0.1") in networks.look()
    networks.drain()
    networks._socket.close()
