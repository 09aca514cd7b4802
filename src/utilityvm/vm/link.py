"""A VM's own network: opened before the machine runs, given to the guest when it does, gone with the VM; or set up by a proxy meanwhile."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from utilityvm.compute.ports import Machine
from utilityvm.devices.network import Network
from utilityvm.devices.vpci import VPci
from utilityvm.kit.errors import UtilityVMError
from utilityvm.kit.ids import NULL_GUID
from utilityvm.kit.trace import span
from utilityvm.network.uplink import Uplink
from utilityvm.schema.devices import NetworkAdapter
from utilityvm.schema.hns import Namespace
from utilityvm.vm.failed_start import Phase
from utilityvm.vm.uplinks import Uplinks

if TYPE_CHECKING:
    from utilityvm.vm.proxied import ProxiedNetwork  # what few VMs have


class Links(msgspec.Struct, frozen=True):
    """What gives a VM its network: an uplink of its own, or a proxy of the node; neither: it has none."""

    uplink: Uplink | None = None
    proxy: "ProxiedNetwork | None" = None


NO_LINKS: Final = Links()


class Adapters(msgspec.Struct, frozen=True):
    """What of a running VM is given adapters and devices."""

    network: Network
    vpci: VPci
    update_nic: Callable[[str, NetworkAdapter], Awaitable[None]]


async def open_link(links: Links, system: Machine, phase: Phase) -> None:
    """Make the VM's own network, if one is wanted, and let the machine's adapters be on it.

    Raises:
        UtilityVMError: see `UserUplink.open` and `TapUplink.open`.
    """
    if links.uplink is None:
        return
    before, phase.now = phase.now, "its network"
    await links.uplink.open()
    system.offer(links.uplink.endpoint.id, links.uplink.wire)
    phase.now = before


async def join(links: Links, vm: Adapters, end: Callable[[], Awaitable[None]]) -> None:
    """Give the running VM its adapter; without the network that was wanted it is of no use, and is ended.

    Raises:
        UtilityVMError: see `Network.add_endpoint` and `ProxiedNetwork.set_up`.
    """
    if links == NO_LINKS:
        return
    try:
        with span("vm.network", level=logging.DEBUG):
            if links.uplink is not None:
                await vm.network.add_namespace(Namespace(id=NULL_GUID))
                await vm.network.add_endpoint(NULL_GUID, links.uplink.endpoint)
            if links.proxy is not None:
                await links.proxy.set_up(vm)
    except BaseException:
        with suppress(UtilityVMError):  # why it failed says more
            await end()
        raise


async def leave(links: Links) -> None:
    """Have the network torn down that a proxy set up, before its VM ends; nothing is raised."""
    if links.proxy is not None:
        await links.proxy.tear_down()


async def close_machine(system: Machine, links: Links, more: Uplinks) -> None:
    """Close the machine, and after it its networks, whatever becomes of the machine."""
    try:
        with span("machine.close", level=logging.DEBUG):
            await system.close()
    finally:
        await more.aclose()
        if links.uplink is not None:
            await links.uplink.aclose()
        if links.proxy is not None:
            await links.proxy.aclose()
