"""Taps, as far as no root is needed: who is not root is told so."""

import os

import pytest

from utilityvm import BridgeNetwork, NamespaceNetwork, Unsupported
from utilityvm.kit.ids import VmId
from utilityvm.network.tap import TapUplink

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize(
    ("wish", "name"),
    [
        (NamespaceNetwork(namespace="/proc/self/ns/net"), "namespace /proc/self/ns/net"),
        (BridgeNetwork(bridge="br0", addresses=("10.0.0.2/24",)), "bridge br0"),
    ],
)
async def test_only_root_can_have_a_tap_and_others_are_told_what_needs_no_root(
    wish: NamespaceNetwork | BridgeNetwork, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Unsupported, match=f"vm a: {name}: only root can make taps") as caught:
        await TapUplink(VmId("a"), wish).open()
    assert caught.value.hint == "a network of the kind user needs no root"
