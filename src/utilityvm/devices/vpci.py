"""Devices of the host that are given to the guest whole, each at a place of the guest's bus that has a GUID."""

from collections.abc import Mapping
from typing import final

import msgspec
from msgspec.structs import replace

from utilityvm.devices import paths
from utilityvm.devices.holdings import Held, Holding, Holdings
from utilityvm.devices.ports import Owner
from utilityvm.kit.errors import NotFound
from utilityvm.kit.ids import new_guid
from utilityvm.schema.devices import VirtualPciDevice, VirtualPciFunction
from utilityvm.schema.guest_requests import GuestRequest, LCOWMappedVPCIDevice
from utilityvm.schema.requests import ModifySettingRequest


class AssignedDevice(msgspec.Struct, frozen=True):
    """A device of the host (`device_id`, of it the virtual function), which the guest finds at `vmbus_guid`."""

    device_id: str
    vmbus_guid: str
    references: int = 1
    state: str = Held.ATTACHED.value
    virtual_function: int = 0


@final
class VPci:
    """The devices of the host that one VM has. `assigned` are those that it has from its start, by the GUIDs of their places."""

    def __init__(self, owner: Owner, assigned: Mapping[str, str]) -> None:
        self._owner = owner
        self._held = Holdings[AssignedDevice](owner.id, "assigned device", _Effects(owner))
        for guid, device_id in assigned.items():
            self._held.adopt(_key(device_id, 0), AssignedDevice(device_id, guid))

    @property
    def devices(self) -> tuple[AssignedDevice, ...]:
        """All devices, also those that are on their way in or out."""
        return tuple(_now(held) for held in self._held)

    async def assign(self, device_id: str, virtual_function: int = 0, vmbus_guid: str = "") -> AssignedDevice:
        """Give the guest a device of the host: on Windows by its instance path, on Linux by its PCI address (``0000:01:00.0``).

        `virtual_function` is the number of one that the device has, on Windows; on Linux each has an address of its own. `vmbus_guid`
        is what its place is to be called, ``""``: a GUID is drawn.

        A Linux guest has seen it when this returns. A device that is given is counted once more. On QEMU it can be given only to a VM
        that was created with it (`OptionsLCOW.assigned_devices`) and gave it back: its jail shows no other.

        Raises:
            StateError: the VM is not running; or the device, or one of its IOMMU group, is bound to another driver than vfio-pci.
            Unsupported: the VM was not created with the device, or may have less memory than it says, or the host has no IOMMU at work.
            NotFound, Exhausted, HostError, GuestError, ConnectionLost, DeadlineExceeded: see `UtilityVM.modify`.
        """
        made = AssignedDevice(device_id, vmbus_guid or new_guid(), virtual_function=virtual_function)
        return _now(await self._held.take(_key(device_id, virtual_function), lambda: made))

    async def remove(self, device_id: str, virtual_function: int = 0) -> None:
        """Give back a device; with the last reference it is the host's again. When that fails the same call may be made again.

        Raises:
            NotFound: it is not given to the VM.
            StateError, HostError, ConnectionLost: see `UtilityVM.modify`.
        """
        key = _key(device_id, virtual_function)
        if self._held.find(key) is None:
            raise NotFound(f"no device with ID {device_id} is present on the uvm {self._owner.id}")
        await self._held.drop(key)


@final
class _Effects:
    """How devices come into a VM and out of it; the host takes one away without asking the guest."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    async def attach(self, thing: AssignedDevice) -> None:
        guest = None
        if not self._owner.windows:
            seen = LCOWMappedVPCIDevice(vmbus_guid=thing.vmbus_guid)
            guest = GuestRequest(request_type="Add", resource_type="VPCIDevice", settings=seen)
        function = VirtualPciFunction(device_instance_path=thing.device_id, virtual_function=thing.virtual_function)
        device = VirtualPciDevice(functions=[function])
        path = paths.vpci(thing.vmbus_guid)
        await self._owner.modify(ModifySettingRequest(resource_path=path, request_type="Add", settings=device, guest_request=guest))

    async def detach(self, thing: AssignedDevice, *, from_guest: bool) -> None:  # noqa: ARG002 (the guest is not asked)
        await self._owner.modify(ModifySettingRequest(resource_path=paths.vpci(thing.vmbus_guid), request_type="Remove"))


def _now(held: Holding[AssignedDevice]) -> AssignedDevice:
    return replace(held.thing, references=held.references, state=held.state.value)


def _key(device_id: str, virtual_function: int) -> str:
    return f"{device_id}, virtual function {virtual_function}" if virtual_function else device_id
