"""Flags of a VM's network."""

import argparse

import pytest

from utilityvm import InvalidOptions, UserNetwork
from utilityvm.cli.network import add_network_flags, wanted_network


def wanted(*words: str) -> UserNetwork | None:
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


def test_flags_that_contradict_each_other_are_refused_by_name() -> None:
    with pytest.raises(InvalidOptions, match="^--allow, -p: with --network none there is nothing to apply it to"):
        wanted("--network", "none", "--allow", "1.1.1.1", "-p", "1:1")
