"""Calls about a container by its id alone, as the original has them on the VM."""

from utilityvm.guest.connection import GuestConnection
from utilityvm.guest.container import container_constraints
from utilityvm.kit.errors import Unsupported


async def delete_state(guest: GuestConnection | None, container_id: str) -> None:
    """See `UtilityVM.delete_container_state`."""
    if guest is None or not guest.client.capabilities.guest_defined.delete_container_state_supported:
        raise Unsupported("uvm guest connection does not support deleteContainerState")
    await guest.client.delete_container_state(container_id)


async def update(guest: GuestConnection | None, container_id: str, limits: object, name: str) -> None:
    """See `UtilityVM.update_container`; `name` is the VM's."""
    if guest is None:
        raise Unsupported(f"{name}: no guest connection of its own, by which a container's limits are changed")
    await guest.client.modify(container_constraints(limits, guest.client.os), container_id)
