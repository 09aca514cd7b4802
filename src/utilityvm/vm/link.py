"""A VM's own network: opened before the machine runs, given to the guest when it does, gone with the VM."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from utilityvm.compute.ports import Machine
from utilityvm.devices.network import Network
from utilityvm.kit.errors import UtilityVMError
from utilityvm.kit.ids import NULL_GUID
from utilityvm.kit.trace import span
from utilityvm.network.user import UserUplink
from utilityvm.schema.hns import Namespace
from utilityvm.vm.failed_start import Phase


async def open_link(uplink: UserUplink | None, system: Machine, phase: Phase) -> None:
    """Make the network, if one is wanted, and let the machine's adapters be on it.

    Raises:
        UtilityVMError: see `UserUplink.open`.
    """
    if uplink is None:
        return
    before, phase.now = phase.now, "its network"
    await uplink.open()
    system.offer(uplink.endpoint.id, uplink.wire)
    phase.now = before


async def join(uplink: UserUplink | None, network: Network, end: Callable[[], Awaitable[None]]) -> None:
    """Give the running VM its adapter; without the network that was wanted it is of no use, and is ended.

    Raises:
        UtilityVMError: see `Network.add_endpoint`.
    """
    if uplink is None:
        return
    try:
        with span("vm.network", level=logging.DEBUG):
            await network.add_namespace(Namespace(id=NULL_GUID))
            await network.add_endpoint(NULL_GUID, uplink.endpoint)
    except BaseException:
        with suppress(UtilityVMError):  # why it failed says more
            await end()
        raise


async def close_machine(system: Machine, uplink: UserUplink | None) -> None:
    """Close the machine, and after it its network, whatever becomes of the machine."""
    try:
        with span("machine.close", level=logging.DEBUG):
            await system.close()
    finally:
        if uplink is not None:
            await uplink.aclose()
