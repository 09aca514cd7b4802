"""Devices of the host that the specification of a Linux container names in its section for Windows, as the original's callers do."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from utilityvm.containers.releases import Releases
from utilityvm.devices.ports import Owner
from utilityvm.devices.vpci import VPci
from utilityvm.kit.errors import Unsupported
from utilityvm.plan.facts import Platform
from utilityvm.wire.oci import WindowsDevice

_INSTANCE: Final = {"vpci-instance-id", "vpci"}
"""Types of devices that are named by the id under which the host gives them to VMs."""


def check_devices(owner: Owner, devices: Sequence[WindowsDevice]) -> None:
    """Refuse devices that no container of this VM can be given.

    Raises:
        Unsupported: the driver is QEMU's, whose guests have no VMBus by which a device is found; or it is no device of its own.
    """
    for place, device in enumerate(devices):
        where = f"$.windows.devices[{place}]"
        if owner.host.platform is Platform.QEMU:
            hint = "create the VM with assigned_devices, and name the device's nodes in linux.devices, as /dev/dri/card0"
            raise Unsupported(f"{where}: {device.id}: a guest on QEMU finds no device by its place on VMBus", hint=hint)
        if device.id_type == "gpu":
            hint = "with the type vpci-instance-id it is given without them"
            raise Unsupported(f"{where}: {device.id}: a GPU's own programs and hooks are not in the guest", hint=hint)
        if device.id_type not in _INSTANCE:
            raise Unsupported(f"{where}: specified device {device.id} has unsupported type {device.id_type}")


async def assign(vpci: VPci, devices: Sequence[WindowsDevice], taken: Releases) -> list[WindowsDevice]:
    """Give the VM the devices, which are checked, and return them as its guest finds them: by the GUIDs of their places.

    Raises:
        UtilityVMError: as `VPci.assign`, with the device that it was about.
    """
    placed = []
    for device in devices:
        given = await vpci.assign(device.id)
        taken.push(f"device {device.id}", partial(vpci.remove, device.id))
        placed.append(WindowsDevice(id=given.vmbus_guid, id_type=device.id_type))
    return placed
