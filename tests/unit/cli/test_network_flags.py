"""Flags of a VM's network."""

import argparse

import pytest

from utilityvm import BridgeNetwork, InvalidOptions, NamespaceNetwork, UserNetwork
from utilityvm.cli.network import add_network_flags, wanted_network
from utilityvm.options.network import NetworkWish


def wanted(*words: str) -> NetworkWish | None:
    parser = argparse.ArgumentParser()
    add_network_flags(parser)
    return wanted_network(parser.parse_args(words))


def test_without_flags_there_is_no_network() -> None:
    assert wanted() is None
    assert wanted("--network", "none") is None
    assert wanted("--network", "user") == UserNetwork()


def test_what_only_a_network_makes_sense_with_asks_for_one() -> None:
    assert wanted("-p", "80:80", "--publish", "81:81/udp") == UserNetwork(publish=("80:80", "81:81/udp"))
    assert wanted("--dns", "1.1.1.1", "--allow", "*.a.b", "--allow", "1.2.3.4:5") == UserNetwork(
        allow=("*.a.b", "1.2.3.4:5"), dns=("1.1.1.1",)
    )
    assert wanted("--rate", "10m") == UserNetwork(rate=10 << 20)
    assert wanted("--network", "ns:/run/netns/a", "--rate", "1m") == NamespaceNetwork(namespace="/run/netns/a", rate=1 << 20)
    bridge = BridgeNetwork(bridge="b", addresses=("192.0.2.2/24",), rate=1 << 20)
    assert wanted("--network", "bridge:b", "--ip", "192.0.2.2/24", "--rate", "1m") == bridge
    assert wanted("--add-host", "a:1.2.3.4", "--add-host", "b:::1") == UserNetwork(hosts=("a:1.2.3.4", "b:::1"))


def test_flags_that_contradict_each_other_are_refused_by_name() -> None:
    with pytest.raises(InvalidOptions, match="^--allow, -p, --add-host: with --network none there is nothing to apply it to"):
        wanted("--network", "none", "--allow", "1.1.1.1", "-p", "1:1", "--add-host", "a:1.1.1.1")


def test_a_namespace_and_a_bridge_are_named_after_a_colon() -> None:
    assert wanted("--network", "ns:/run/netns/pod") == NamespaceNetwork(namespace="/run/netns/pod")
    assert wanted("--network", "ns:/proc/7/ns/net", "--dns", "1.1.1.1") == NamespaceNetwork(namespace="/proc/7/ns/net", dns=("1.1.1.1",))
    words = ("--network", "bridge:br0", "--ip", "10.0.0.2/24", "--ip", "fd00::2/64", "--gateway", "10.0.0.1")
    assert wanted(*words) == BridgeNetwork(bridge="br0", addresses=("10.0.0.2/24", "fd00::2/64"), gateways=("10.0.0.1",))


@pytest.mark.parametrize("kind", ["tap", "user:x", "none:x", "ns", "ns:", "bridge", "host"])
def test_another_kind_is_refused_with_those_that_there_are(kind: str) -> None:
    with pytest.raises(InvalidOptions, match=f"^--network {kind}: is none of none, user, ns:PATH and bridge:NAME"):
        wanted("--network", kind)


@pytest.mark.parametrize(
    ("words", "idle"),
    [
        (("--network", "ns:/x", "-p", "80:80"), "-p: with --network ns"),
        (("--network", "bridge:br0", "--allow", "1.1.1.1"), "--allow: with --network bridge"),
        (("--network", "user", "--ip", "10.0.0.2/24"), "--ip: with --network user"),
        (("--gateway", "10.0.0.1"), "--gateway: with --network user"),
    ],
)
def test_a_flag_of_another_kind_is_refused_by_name(words: tuple[str, ...], idle: str) -> None:
    with pytest.raises(InvalidOptions, match=f"^{idle} there is nothing to apply it to"):
        wanted(*words)
