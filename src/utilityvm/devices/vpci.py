"""Devices of the host that are given to the guest whole, each at a place of the guest's bus that has a GUID."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

from utilityvm.devices import paths
from utilityvm.devices.holdings import Held, Holding, Holdings
from utilityvm.devices.ports import Owner
from utilityvm.kit.errors import NotFound
from utilityvm.kit.ids import new_guid
from utilityvm.schema.devices import VirtualPciDevice, VirtualPciFunction
from utilityvm.schema.guest_requests import GuestRequest, LCOWMappedVPCIDevice
from utilityvm.schema.requests import ModifySettingRequest


@dataclass(frozen=True, slots=True)
class AssignedDevice:
    """A device of the host (`device_id`), which the guest finds at `vmbus_guid`."""

    device_id: str
    vmbus_guid: str
    references: int = 1
    state: str = Held.ATTACHED.value


@final
class VPci:
    """The devices of the host that one VM has. `assigned` are those that it has from its start, by the GUIDs of their places."""

    def __init__(self, owner: Owner, assigned: Mapping[str, str]) -> None:
        self._owner = owner
        self._held = Holdings[AssignedDevice](owner.id, "assigned device", _Effects(owner))
        for guid, device_id in assigned.items():
            self._held.adopt(device_id, AssignedDevice(device_id, guid))

    @property
    def devices(self) -> tuple[AssignedDevice, ...]:
        """All devices, also those that are on their way in or out."""
        return tuple(_now(held) for held in self._held)

    async def assign(self, device_id: str) -> AssignedDevice:
        """Give the guest a device of the host: on Windows by its instance path, on Linux by its PCI address (``0000:01:00.0``).

        A Linux guest has seen it when this returns. A device that is given is counted once more. On QEMU it can be given only to a VM
        that was created with it (`OptionsLCOW.assigned_devices`) and gave it back: its jail shows no other.

        Raises:
            StateError: the VM is not running; or the device, or one of its IOMMU group, is bound to another driver than vfio-pci.
            Unsupported: the VM was not created with the device, or may have less memory than it says, or the host has no IOMMU at work.
            NotFound, Exhausted, HostError, GuestError, ConnectionLost, DeadlineExceeded: see `UtilityVM.modify`.
        """
        return _now(await self._held.take(device_id, lambda: AssignedDevice(device_id, new_guid())))

    async def remove(self, device_id: str) -> None:
        """Give back a device; with the last reference it is the host's again. When that fails the same call may be made again.

        Raises:
            NotFound: it is not given to the VM.
            StateError, HostError, ConnectionLost: see `UtilityVM.modify`.
        """
        if self._held.find(device_id) is None:
            raise NotFound(f"no device with ID {device_id} is present on the uvm {self._owner.id}")
        await self._held.drop(device_id)


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
        device = VirtualPciDevice(functions=[VirtualPciFunction(device_instance_path=thing.device_id)])
        path = paths.vpci(thing.vmbus_guid)
        await self._owner.modify(ModifySettingRequest(resource_path=path, request_type="Add", settings=device, guest_request=guest))

    async def detach(self, thing: AssignedDevice, *, from_guest: bool) -> None:  # noqa: ARG002 (the guest is not asked)
        await self._owner.modify(ModifySettingRequest(resource_path=paths.vpci(thing.vmbus_guid), request_type="Remove"))


def _now(held: Holding[AssignedDevice]) -> AssignedDevice:
    return replace(held.thing, references=held.references, state=held.state.value)
