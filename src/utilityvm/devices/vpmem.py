"""Persistent memory devices: read-only images that a Linux guest maps straight from the host's memory, each in a slot of its own.

QEMU cannot unplug such a device. There a removed one is only unmounted: its slot stays reserved with its file until the VM closes, and
is used again when the same file comes again.
"""

from collections.abc import Hashable, Sequence
from typing import Final, final

import msgspec

from utilityvm.devices import paths
from utilityvm.devices.holdings import Held, Holding, Holdings
from utilityvm.devices.mounts import Mount
from utilityvm.devices.ports import Owner, Seen
from utilityvm.kit.errors import Exists, HostError, NotFound, NoVPMem, UtilityVMError
from utilityvm.plan.facts import Platform
from utilityvm.plan.lcow import LcowPlan, VPMemSlot
from utilityvm.schema.devices import ImageFormat, VirtualPMemDevice
from utilityvm.schema.guest_requests import GuestRequest, LCOWMappedVPMemDevice
from utilityvm.schema.requests import ModifySettingRequest
from utilityvm.store.devices import PmemRecord

RESERVED: Final = "reserved"
"""State of a device that was removed and cannot be unplugged."""

ROOT: Final = "root"
"""State of the device that the guest runs from."""


class PMemDevice(msgspec.Struct, frozen=True):
    """A device of a VM: the file `host_path` in `slot`, which the guest has mounted at `guest_path`.

    `state` is a `devices.holdings.Held`, `RESERVED` or `ROOT`.
    """

    slot: int
    host_path: str
    guest_path: str
    references: int = 1
    state: str = Held.ATTACHED.value


@final
class VPMem:
    """The persistent memory devices of one VM: `plan` says how many at most, and how large (bytes). A Windows guest (None) has none."""

    def __init__(self, owner: Owner, plan: LcowPlan | None) -> None:
        self._owner = owner
        self._count, self._size = (plan.vpmem_max_count, plan.vpmem_max_size_bytes) if plan else (0, 0)
        self._root: VPMemSlot | None = plan.vpmem_root if plan else None
        self._plugged: dict[int, _Plugged] = {}
        effects = _Plugging(owner, self._plugged) if owner.host.platform is Platform.QEMU else _Effects(owner)
        self._held = Holdings[_Slot](owner.id, "VPMem device", effects)
        owner.mounts.watch(lambda: (Mount(held.thing.guest_path, f"the layer {held.thing.host_path}", held.state) for held in self._held))

    def save(self) -> tuple[PmemRecord, ...]:
        """Return the records of the devices, also of those that are reserved.

        Raises:
            StateError: one is on its way in or out.
        """
        self._held.still()
        return tuple(
            PmemRecord(slot=device.slot, host_path=device.host_path, guest_path=device.guest_path, references=device.references)
            for device in self.devices
            if device.state != ROOT
        )

    def restore(self, records: Sequence[PmemRecord]) -> None:
        """Have the devices of a VM that was saved. One whose file has gone meanwhile has it all the same; no other is taken for it."""
        for record in records:
            try:
                seen = self._owner.host.look(record.host_path)
            except (NotFound, HostError):
                seen = Seen(folder=False)
            self._plugged[record.slot] = _Plugged(record.host_path, seen.identity)
            if record.references:
                self._held.adopt(record.host_path, _Slot(record.slot, record.host_path, record.guest_path, seen), record.references)

    @property
    def devices(self) -> tuple[PMemDevice, ...]:
        """All devices that have a slot, by slot: those in use, the guest's root, and those that are reserved."""
        known = [_now(held) for held in self._held]
        if self._root is not None:
            known.append(PMemDevice(0, self._root.host_path, self._root.uvm_path, state=ROOT))
        in_use = {device.slot for device in known}
        reserved = [PMemDevice(slot, was.host_path, "", 0, RESERVED) for slot, was in self._plugged.items() if slot not in in_use]
        return tuple(sorted([*known, *reserved], key=lambda device: device.slot))

    async def add(self, host_path: str) -> PMemDevice:
        """Attach an image to read, and let the guest mount it at a path of its slot. One that is attached is counted once more.

        A call that is cancelled is carried out, and then taken back.

        Raises:
            NoVPMem: the file is too large, or no slot is free: a SCSI disk may take it, see `Layers.add`.
            Unsupported: the guest is Windows.
            NotFound: the file does not exist.
            Exists: something else is mounted at the path of its slot.
            StateError, HostError, GuestError, ConnectionLost, DeadlineExceeded: see `UtilityVM.modify`.
        """
        self._owner.needs_linux("persistent memory")
        return _now(await self._held.take(host_path, lambda: self._place(host_path)))

    async def remove(self, host_path: str) -> None:
        """Give back a device; with the last reference the guest unmounts it, and it leaves the VM or is `RESERVED`.

        When that fails the same call may be made again.

        Raises:
            NotFound: it is not attached.
            Exists: the guest runs from it.
            Unsupported: the guest is Windows.
            StateError, HostError, GuestError, ConnectionLost, DeadlineExceeded: see `UtilityVM.modify`.
        """
        self._owner.needs_linux("persistent memory")
        if self._root is not None and host_path == self._root.host_path and self._held.find(host_path) is None:
            raise Exists(f"{self._owner.name}: {host_path} is the disk that the guest runs from: it cannot be removed")
        await self._held.drop(host_path)

    def _place(self, host_path: str) -> "_Slot":
        seen = self._owner.host.look(host_path)
        if seen.size > self._size:
            hint = f"{self._owner.name}: {host_path} has {seen.size} bytes, a device at most {self._size}; a SCSI disk takes it"
            raise NoVPMem("layer size is to large for VPMEM max size", hint=hint)
        file = _Plugged(host_path, seen.identity)
        taken = {held.thing.slot for held in self._held} | ({0} if self._root is not None else set())
        again = [slot for slot, was in self._plugged.items() if was == file and slot not in taken]
        free = [slot for slot in range(self._count) if slot not in taken and slot not in self._plugged]
        if not again and not free:
            reserved = len(self._plugged.keys() - taken)
            hint = f"{self._owner.name} has {self._count} devices, {reserved} of them reserved; a SCSI disk takes {host_path}"
            raise NoVPMem("no available location", hint=hint)
        slot = (again or free)[0]
        self._owner.require_free(f"/run/layers/p{slot}", host_path)
        return _Slot(slot, host_path, f"/run/layers/p{slot}", seen)


class _Slot(msgspec.Struct, frozen=True):
    slot: int
    host_path: str
    guest_path: str
    seen: Seen


class _Plugged(msgspec.Struct, frozen=True):
    """A file that a device has for good."""

    host_path: str
    identity: Hashable


@final
class _Effects:
    """How devices come into a VM and out of it, both halves in one request."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    async def attach(self, thing: _Slot) -> None:
        try:
            await self._owner.modify(_request("Add", thing, settings=_device(thing), guest=True))
        except UtilityVMError as error:
            error.during(_ADDING)
            raise

    async def detach(self, thing: _Slot, *, from_guest: bool) -> None:
        try:
            await self._owner.modify(_request("Remove", thing, guest=from_guest))
        except UtilityVMError as error:
            error.during(_removing(thing, self._owner))
            raise


@final
class _Plugging:
    """How they do where a device stays: it is plugged for itself, and the guest mounts it and lets it go."""

    def __init__(self, owner: Owner, plugged: dict[int, _Plugged]) -> None:
        self._owner, self._plugged = owner, plugged

    async def attach(self, thing: _Slot) -> None:
        try:
            if thing.slot not in self._plugged:
                await self._owner.modify(_request("Add", thing, settings=_device(thing)))
                self._plugged[thing.slot] = _Plugged(thing.host_path, thing.seen.identity)
            await self._owner.modify(ModifySettingRequest(guest_request=_guest("Add", thing)))
        except UtilityVMError as error:
            error.during(_ADDING)
            raise

    async def detach(self, thing: _Slot, *, from_guest: bool) -> None:
        if not from_guest:
            return
        try:
            await self._owner.modify(ModifySettingRequest(guest_request=_guest("Remove", thing)))
        except UtilityVMError as error:
            error.during(_removing(thing, self._owner))
            raise


_ADDING: Final = "uvm::AddVPMEM: failed to modify utility VM configuration"


def _removing(thing: _Slot, owner: Owner) -> str:
    return f"failed to remove VPMEM {thing.host_path} from utility VM {owner.id}"


def _request(request_type: str, thing: _Slot, *, settings: object = None, guest: bool = False) -> ModifySettingRequest:
    mine = _guest(request_type, thing) if guest else None
    return ModifySettingRequest(resource_path=paths.vpmem(thing.slot), request_type=request_type, settings=settings, guest_request=mine)


def _guest(request_type: str, thing: _Slot) -> GuestRequest:
    settings = LCOWMappedVPMemDevice(device_number=thing.slot, mount_path=thing.guest_path)
    return GuestRequest(request_type=request_type, resource_type="VPMemDevice", settings=settings)


def _device(thing: _Slot) -> VirtualPMemDevice:
    return VirtualPMemDevice(host_path=thing.host_path, read_only=True, image_format=ImageFormat.VHD)


def _now(held: Holding[_Slot]) -> PMemDevice:
    return PMemDevice(held.thing.slot, held.thing.host_path, held.thing.guest_path, held.references, held.state.value)
