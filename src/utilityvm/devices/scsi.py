"""SCSI disks: which file is where on which controller, how the guest sees it, and how often it was asked for."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, final

import msgspec
from msgspec.structs import replace

from utilityvm.devices import paths
from utilityvm.devices.holdings import Held, Holding, Holdings
from utilityvm.devices.mounts import Mount
from utilityvm.devices.ports import Owner
from utilityvm.kit.errors import Exhausted, Exists, HostError, Unsupported, UtilityVMError
from utilityvm.plan.facts import Platform
from utilityvm.plan.windows import ScsiSlot
from utilityvm.schema.devices import Attachment
from utilityvm.schema.guest_requests import GuestRequest, LCOWMappedVirtualDisk, WCOWMappedVirtualDisk
from utilityvm.schema.requests import ModifySettingRequest
from utilityvm.store.devices import DiskRecord

LUNS: Final = 64
"""Disks of a controller."""

FILE: Final = "VirtualDisk"
DEVICE: Final = "PassThru"


class DiskAccess(StrEnum):
    """Who is let open a disk's file, where the host service opens it: nobody anew, every VM of the host, or this VM alone."""

    NONE = "none"
    GROUP = "group"
    INDIVIDUAL = "individual"


class Disk(msgspec.Struct, frozen=True):
    """A disk of a VM: the file or device `host_path` at `controller`:`lun`, which the guest has mounted at `guest_path`.

    `guest_path` is ``""`` for a disk that is only attached; `type` is ``VirtualDisk`` or ``PassThru``; `options` are of the guest's mount.
    """

    controller: int
    lun: int
    host_path: str
    guest_path: str
    type: str
    read_only: bool
    options: tuple[str, ...] = ()
    references: int = 1
    state: str = Held.ATTACHED.value


@final
class Scsi:
    """The SCSI disks of one VM. `controllers` of `LUNS` disks each, of which `slots` are taken from the start."""

    def __init__(self, owner: Owner, controllers: int, slots: Sequence[ScsiSlot] = ()) -> None:
        self._owner, self._places = owner, [(controller, lun) for controller in range(controllers) for lun in range(LUNS)]
        self._effects = _Effects(owner)
        self._held = Holdings[Disk](owner.id, "SCSI disk", self._effects)
        owner.mounts.watch(
            lambda: (Mount(held.thing.guest_path, f"the SCSI disk {held.thing.host_path}", held.state) for held in self._held)
        )
        for slot in slots:
            disk = Disk(slot.controller, slot.lun, slot.host_path, slot.uvm_path, slot.attachment_type, slot.read_only)
            self._held.adopt(slot.host_path, disk)

    def save(self) -> tuple[DiskRecord, ...]:
        """Return the records of the disks. What is on them is for the host to add.

        Raises:
            StateError: one is on its way in or out.
        """
        return tuple(_record(held) for held in self._held.still())

    def restore(self, records: Sequence[DiskRecord]) -> None:
        """Have the disks of a VM that was saved."""
        for record in records:
            disk = Disk(record.controller, record.lun, record.host_path, record.guest_path, FILE, record.read_only, record.options)
            self._held.adopt(record.host_path, disk, record.references)

    @property
    def disks(self) -> tuple[Disk, ...]:
        """All disks that have a place, also those that are on their way in or out; `state` and `references` are as of now."""
        return tuple(_now(held) for held in self._held)

    def disk(self, host_path: str) -> Disk:
        """Return the disk that this file is.

        Raises:
            NotFound: it is not attached.
        """
        return _now(self._held.the(host_path))

    def guest_path(self, host_path: str) -> str:
        """Return where the guest has mounted this file, ``""`` for a disk that is only attached.

        Raises:
            NotFound: it is not attached.
        """
        return self._held.the(host_path).thing.guest_path

    async def add(
        self,
        host_path: str,
        guest_path: str = "",
        *,
        read_only: bool = False,
        options: Sequence[str] = (),
        access: DiskAccess = DiskAccess.NONE,
        encrypted: bool = False,
    ) -> Disk:
        """Attach a virtual disk (on QEMU raw, qcow2, VHD or VHDX) and let the guest mount it at `guest_path`, ``""``: nowhere.

        A file that is attached in the same way is counted once more; give it back by `remove` as often as it was added. A call that is
        cancelled is carried out, and then taken back.

        Raises:
            Exists: the file is attached in another way; or something else is mounted at `guest_path`.
            Exhausted: every place on the controllers is taken.
            Unsupported: the VM has no SCSI controller, or `encrypted`, which no guest of ours can mount.
            StateError: the VM is not running; or the disk is half detached, and `remove` must be called again.
            NotFound, InvalidOptions, HostError, GuestError, ConnectionLost, DeadlineExceeded: see `UtilityVM.modify`.
        """
        if encrypted:
            raise Unsupported(f"{self._owner.name}: {host_path}: encrypted: no guest agent of ours opens encrypted disks")
        return await self._add(FILE, host_path, guest_path, read_only, tuple(options), access)

    async def add_physical_disk(
        self, host_path: str, guest_path: str = "", *, read_only: bool = False, options: Sequence[str] = ()
    ) -> Disk:
        """Attach a disk of the host itself (a block device). See `add`; this VM is let open it.

        Raises:
            UtilityVMError: as `add`.
        """
        return await self._add(DEVICE, host_path, guest_path, read_only, tuple(options), DiskAccess.INDIVIDUAL)

    async def remove(self, host_path: str) -> None:
        """Give back a disk; with the last reference it leaves the guest, and then the VM.

        When that fails the disk is as it was, or half detached (the guest has given it up, the host has not); either way the same call
        may be made again.

        Raises:
            NotFound: it is not attached.
            StateError, HostError, GuestError, ConnectionLost, DeadlineExceeded: see `UtilityVM.modify`.
        """
        self._need_controllers()
        await self._held.drop(host_path)

    async def leave_guest(self, host_path: str) -> bool:
        """Give back a disk as far as its guest is concerned: with the last reference it leaves the guest.

        Returns whether the VM alone has it now: then `remove` takes it away.
        When that fails the disk is as it was, and the same call may be made again.

        Raises:
            NotFound: it is not attached.
            StateError, GuestError, ConnectionLost, DeadlineExceeded: see `UtilityVM.modify`.
        """
        return await self._held.halve(host_path, self._effects.leave_guest)

    async def grow(self, host_path: str) -> None:
        """Let the VM look again at a file that has grown: the disk grows with it.

        On QEMU the guest's agent then grows the file system that it has mounted there, ext4 or xfs; elsewhere that is the guest's matter.

        Raises:
            NotFound: it is not attached.
            StateError: the VM is not running; or the disk is half detached.
            Unsupported, HostError, GuestError, ConnectionLost: see `UtilityVM.modify`.
        """

        async def update(disk: Disk) -> Disk:
            path, guest = paths.scsi(disk.controller, disk.lun), None
            if self._owner.host.platform is Platform.QEMU:
                guest = _request("Update", LCOWMappedVirtualDisk(mount_path=disk.guest_path, lun=disk.lun, controller=disk.controller))
            request = ModifySettingRequest(resource_path=path, request_type="Update", settings=_attachment(disk), guest_request=guest)
            await self._owner.modify(request)
            return disk

        await self._held.change(host_path, update)

    async def _add(self, kind: str, host_path: str, guest_path: str, read_only: bool, options: tuple[str, ...], access: DiskAccess) -> Disk:
        wanted = Disk(0, 0, host_path, guest_path, kind, read_only, options)

        def place() -> Disk:
            self._need_controllers()
            self._owner.require_free(guest_path, host_path)
            taken = {(held.thing.controller, held.thing.lun) for held in self._held}
            free = next((place for place in self._places if place not in taken), None)
            if free is None:
                hint = f"{self._owner.name} has {len(self._places)} places for SCSI disks, and all are taken: remove a disk"
                raise Exhausted("too many SCSI attachments", hint=hint)
            return replace(wanted, controller=free[0], lun=free[1])

        def admit(there: Disk) -> None:
            self._admit(there, wanted)

        if (there := self._held.find(host_path)) is not None:
            admit(there.thing)
        await self._grant(host_path, access)
        return _now(await self._held.take(host_path, place, admit))

    def _need_controllers(self) -> None:
        if not self._places:
            text = "no SCSI controllers configured for this utility VM"
            raise Unsupported(text, hint=f"{self._owner.name} was created with scsi_controller_count 0")

    def _admit(self, there: Disk, wanted: Disk) -> None:
        """Refuse another mode: whoever asked first has a disk that he knows."""
        asked = {"type": wanted.type, "guest_path": wanted.guest_path, "read_only": wanted.read_only, "options": sorted(wanted.options)}
        has = {"type": there.type, "guest_path": there.guest_path, "read_only": there.read_only, "options": sorted(there.options)}
        other = [f"{name} is {has[name]!r}, not {asked[name]!r}" for name in asked if has[name] != asked[name]]
        if other:
            text = f"{self._owner.name}: {there.host_path} is attached in another way: {', '.join(other)}"
            raise Exists(text, hint="ask for it as it is attached, or remove it first")

    async def _grant(self, host_path: str, access: DiskAccess) -> None:
        grants = self._owner.host.grants
        if grants is None or access is DiskAccess.NONE:
            return
        try:
            if access is DiskAccess.GROUP:
                await grants.grant_group_access(host_path)
            else:
                await grants.grant_access(self._owner.id, host_path)
        except HostError as error:
            error.during("failed to grant VM access for SCSI mount")
            raise


@final
class _Effects:
    """How disks come into a VM and out of it."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    async def attach(self, thing: Disk) -> None:
        path = paths.scsi(thing.controller, thing.lun)
        settings = _attachment(thing)
        request = ModifySettingRequest(resource_path=path, request_type="Add", settings=settings, guest_request=self._guest_add(thing))
        try:
            await self._owner.modify(request)
        except UtilityVMError as error:
            error.during("failed to modify UVM with new SCSI mount")
            raise

    async def detach(self, thing: Disk, *, from_guest: bool) -> None:
        path = paths.scsi(thing.controller, thing.lun)
        guest = self._guest_remove(thing) if from_guest else None
        await self._remove(thing, ModifySettingRequest(resource_path=path, request_type="Remove", guest_request=guest))

    async def leave_guest(self, thing: Disk) -> None:
        if (guest := self._guest_remove(thing)) is not None:
            await self._remove(thing, ModifySettingRequest(guest_request=guest))

    async def _remove(self, thing: Disk, request: ModifySettingRequest) -> None:
        try:
            await self._owner.modify(request)
        except UtilityVMError as error:
            error.during(f"failed to remove SCSI disk {thing.host_path} from container {self._owner.id}")
            raise

    def _guest_add(self, disk: Disk) -> GuestRequest | None:
        """On QEMU the guest is told of every disk: there is nothing else that makes it look at its bus."""
        if not disk.guest_path and (self._owner.windows or self._owner.host.platform is not Platform.QEMU):
            return None
        if self._owner.windows:
            return _request("Add", WCOWMappedVirtualDisk(container_path=disk.guest_path, lun=disk.lun))
        seen = LCOWMappedVirtualDisk(lun=disk.lun, controller=disk.controller)
        if disk.guest_path:
            seen = replace(seen, mount_path=disk.guest_path, read_only=disk.read_only, options=list(disk.options))
        return _request("Add", seen)

    def _guest_remove(self, disk: Disk) -> GuestRequest | None:
        """A Linux guest is asked for every disk, so that it lets go of it before its place has another."""
        if not self._owner.windows:
            return _request("Remove", LCOWMappedVirtualDisk(mount_path=disk.guest_path, lun=disk.lun, controller=disk.controller))
        return _request("Remove", WCOWMappedVirtualDisk(container_path=disk.guest_path, lun=disk.lun)) if disk.guest_path else None


def _request(request_type: str, settings: object) -> GuestRequest:
    return GuestRequest(request_type=request_type, resource_type="MappedVirtualDisk", settings=settings)


def _attachment(disk: Disk) -> Attachment:
    return Attachment(type=disk.type, path=disk.host_path, read_only=disk.read_only)


def _record(held: Holding[Disk]) -> DiskRecord:
    disk = held.thing
    return DiskRecord(
        controller=disk.controller,
        lun=disk.lun,
        host_path=disk.host_path,
        guest_path=disk.guest_path,
        read_only=disk.read_only,
        options=disk.options,
        references=held.references,
    )


def _now(held: Holding[Disk]) -> Disk:
    return replace(held.thing, references=held.references, state=held.state.value)
