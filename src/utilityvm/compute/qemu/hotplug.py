"""Disks and persistent memory that come to a running QEMU and go.

Files reach it as descriptors: the jail shows none, and their owner's rights are what counts. Whatever is plugged in has its undo, step by
step: a step that fails is taken back with those before it, and a removal that fails goes on from where it stopped.
"""

import asyncio
import os
import stat
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from itertools import count
from typing import final

import msgspec

from utilityvm.compute.qemu.images import Format, Image, open_image
from utilityvm.compute.qemu.modify import (
    PMEM_ALIGNMENT,
    DiskSlot,
    PmemSlot,
    attachment,
    disk_device,
    disk_node,
    lack,
    pmem_backend,
    pmem_device,
    pmem_driver,
    slot_of,
)
from utilityvm.compute.qemu.monitor import Monitor
from utilityvm.compute.qemu.pins import Pins
from utilityvm.compute.qemu.qos import throttled
from utilityvm.compute.qemu.undo import Undo, take_back, take_out
from utilityvm.kit.errors import Exists, HostError, NotFound, NoVPMem, Unsupported
from utilityvm.kit.files import identity_of
from utilityvm.schema.requests import ModifySettingRequest


class Layer(msgspec.Struct, frozen=True):
    """One of the files of a disk: an open descriptor, and what it is."""

    fd: int
    image: Image


class Plugged(msgspec.Struct):
    """What is in a slot: the file `path`, which was `identity` when it was opened, how to take it out again, and our own descriptor of it.
    A disk may have more files `below` it, the lowest first, with what it has not.
    """

    path: str
    image: Image | None = None
    fd: int = -1
    undo: list[Undo] = msgspec.field(default_factory=list)
    read_only: bool = True
    below: tuple[Layer, ...] = ()
    identity: str = ""

    def open(self, *, device: bool) -> Image:
        """Open the file, and return what it is. See `images.open_image` for errors."""
        self.fd, self.image = open_image(self.path, read_only=self.read_only, device=device)
        self.identity = identity_of(self.path, os.fstat(self.fd))
        return self.image

    def close(self) -> None:
        """Let go of our descriptors."""
        fds, self.fd, self.below = [*(layer.fd for layer in self.below), self.fd], -1, ()
        for fd in fds:
            if fd >= 0:
                os.close(fd)


@final
class Hotplug:
    """The slots of one machine. `controllers` and `pmem` are how many it has; `name` is the machine's. End it with `close`.

    `other_user` says that QEMU is not who we are, `bounded` that there is a throttle group for its disks. What is in the slot `root`
    stays: the guest runs from it. `pins` hears of what is mapped into its memory.
    """

    def __init__(
        self,
        monitor: Monitor,
        name: str,
        *,
        controllers: int,
        pmem: int,
        other_user: bool = False,
        bounded: bool = False,
        root: str = "",
        pins: Pins,
    ) -> None:
        self._pins = pins
        self._other_user, self._bounded, self._root = other_user, bounded, root
        self._monitor, self._name = monitor, name
        self._controllers, self._pmem = controllers, pmem
        self._plugged: dict[str, Plugged] = {}
        self._busy: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._sets = count(1)

    async def modify(self, request: ModifySettingRequest) -> None:
        """Carry out a request for a disk or for persistent memory. See `compute.ports.Modifiable.modify`.

        Raises:
            Exists: there is something in the slot.
            NotFound: there is nothing in it; or no such file.
            InvalidOptions, Unsupported, HostError, ConnectionLost, DeadlineExceeded: it cannot be done.
        """
        slot = slot_of(request, self._controllers, self._pmem)
        if slot is None:
            raise Unsupported(f"{self._name}: {request.resource_path}: {lack(request)}")
        async with self._busy[slot.id]:
            if slot.id == self._root and slot.id in self._plugged:
                raise Exists(f"{self._name}: {request.resource_path}: is the root file system that the guest runs from, and stays")
            match request.request_type, slot:
                case "Add", DiskSlot():
                    await self._add(slot, partial(self._add_disk, slot, request))
                case "Add", PmemSlot():
                    await self._add_pmem(slot, request)
                case "Update", DiskSlot():
                    await self._grow(slot)
                case "Remove", DiskSlot():
                    await self._remove(slot)
                case "Remove", PmemSlot():
                    self._there(slot)  # and stays: QEMU cannot take such a device out
                case _:
                    raise Unsupported(f"{self._name}: {request.resource_path}: RequestType {request.request_type!r}")

    async def inherit(self, slot: DiskSlot | PmemSlot, plugged: Plugged, address: int = 0) -> None:
        """Plug in what the machine that this one goes on from had in a slot; `address` is where the guest has persistent memory. What is
        open in `plugged` is ours from now on.

        Raises:
            Exists, HostError, ConnectionLost, DeadlineExceeded: as `modify`.
        """
        plug = partial(self._plug_disk, slot) if isinstance(slot, DiskSlot) else partial(self._plug_pmem, slot, address=address)
        await self._add(slot, plug, plugged)

    @property
    def plugged(self) -> Mapping[str, Plugged]:
        """What is in each slot, by the slot's id."""
        return self._plugged

    def close(self) -> None:
        """Forget all of it: the machine has ended."""
        for plugged in self._plugged.values():
            plugged.close()
        self._plugged.clear()

    # -- disks ------------------------------------------------------------------------------------------------------

    async def _add_disk(self, slot: DiskSlot, request: ModifySettingRequest, plugged: Plugged) -> None:
        wanted = attachment(request)
        plugged.path, plugged.read_only = wanted.path, wanted.read_only
        plugged.open(device=wanted.type == "PassThru")
        await self._plug_disk(slot, plugged)

    async def _plug_disk(self, slot: DiskSlot, plugged: Plugged) -> None:
        assert plugged.image is not None  # noqa: S101 (it is open)
        below = [(layer.image, (await self._pass(plugged, layer.fd))[0]) for layer in plugged.below]
        name, _ = await self._pass(plugged, plugged.fd)
        node = disk_node(slot, plugged.image, name, read_only=plugged.read_only, below=below)
        node = throttled(node) if self._bounded else node
        await self._do(plugged, "blockdev-add", node, ("blockdev-del", {"node-name": node["node-name"]}))
        await self._monitor.execute("device_add", disk_device(slot))
        plugged.undo.append(lambda: self._monitor.unplug(slot.id))

    async def _grow(self, slot: DiskSlot) -> None:
        plugged = self._there(slot)
        if plugged.image is None or plugged.image.format is not Format.RAW or plugged.image.size:
            raise Unsupported(f"{self._name}: {plugged.path}: only raw disks can grow while they are attached")
        size = os.lseek(plugged.fd, 0, os.SEEK_END)
        await self._monitor.execute("block_resize", {"node-name": f"{slot.id}-disk", "size": size})

    async def _remove(self, slot: DiskSlot) -> None:
        plugged = self._there(slot)
        await take_out(plugged.undo)
        del self._plugged[slot.id]
        plugged.close()

    # -- persistent memory ------------------------------------------------------------------------------------------

    async def _add_pmem(self, slot: PmemSlot, request: ModifySettingRequest) -> None:
        """Add a device; one that stayed from before is as good, when it is of the same file."""
        wanted = pmem_device(request)
        before = self._plugged.get(slot.id)
        if before is None:
            await self._add(slot, partial(self._open_pmem, slot, wanted.host_path))
        elif before.path != wanted.host_path:
            stays = "QEMU cannot take persistent memory out of a running machine"
            raise Exists(f"{self._name}: {request.resource_path}: is still {before.path}, not {wanted.host_path}: {stays}")

    async def _open_pmem(self, slot: PmemSlot, path: str, plugged: Plugged) -> None:
        plugged.path = path
        plugged.open(device=False)
        await self._plug_pmem(slot, plugged)

    async def _plug_pmem(self, slot: PmemSlot, plugged: Plugged, address: int = 0) -> None:
        size = self._pmem_size(slot, plugged)
        self._pins.add(size)
        plugged.undo.append(lambda: self._unmapped(size))
        _, number = await self._pass(plugged, plugged.fd)
        backend = pmem_backend(slot, f"/proc/self/fd/{number}", size)
        await self._do(plugged, "object-add", backend, ("object-del", {"id": backend["id"]}))
        await self._monitor.execute("device_add", pmem_driver(slot, address))
        plugged.close()  # nobody looks at it again, as at a disk that grows

    def _pmem_size(self, slot: PmemSlot, plugged: Plugged) -> int:
        """Return how many bytes of a file the guest maps.

        Raises:
            NoVPMem: it cannot map it.
        """
        assert plugged.image is not None  # noqa: S101 (it is open)
        path, about = plugged.path, os.fstat(plugged.fd)
        if plugged.image.format is not Format.RAW:
            raise NoVPMem(f"{path}: persistent memory is a raw image or a VHD of fixed size")
        size = plugged.image.size or about.st_size
        if size % PMEM_ALIGNMENT:
            hint = self._or_disk("grow the image, truncate --size=%2M", slot)
            raise NoVPMem(f"{path}: {size} bytes are not a multiple of 2 MiB, as persistent memory must be", hint=hint)
        if self._other_user and not about.st_mode & stat.S_IROTH:
            hint = self._or_disk(f"chmod o+r {path}", slot)
            raise NoVPMem(f"{path}: may not be read by all, and QEMU, who maps it, is a user of its own", hint=hint)
        return size

    async def _unmapped(self, size: int) -> None:
        self._pins.add(-size)

    def _or_disk(self, hint: str, slot: PmemSlot) -> str:
        return hint if slot.id == self._root else f"{hint}, or attach it as a SCSI disk"

    # -- both -------------------------------------------------------------------------------------------------------

    async def _add(self, slot: DiskSlot | PmemSlot, plug: Callable[[Plugged], Awaitable[None]], plugged: Plugged | None = None) -> None:
        if (before := self._plugged.get(slot.id)) is not None:
            raise Exists(f"{self._name}: {slot.id}: is {before.path} already")
        plugged = plugged or Plugged("")
        try:
            await plug(plugged)
        except BaseException:
            await take_back(plugged.undo, self._name, slot.id)
            plugged.close()
            raise
        self._plugged[slot.id] = plugged

    async def _do(self, plugged: Plugged, command: str, arguments: Mapping[str, object], undo: tuple[str, Mapping[str, object]]) -> None:
        await self._monitor.execute(command, arguments)
        plugged.undo.append(lambda: self._monitor.execute(*undo))

    async def _pass(self, plugged: Plugged, ours: int) -> tuple[str, int]:
        """Give QEMU our descriptor. Return the name by which its disks are opened, and its number there."""
        number = next(self._sets)
        answer = await self._monitor.execute("add-fd", {"fdset-id": number}, fds=[ours])
        plugged.undo.append(lambda: self._monitor.execute("remove-fd", {"fdset-id": number}))
        fd = answer.get("fd") if isinstance(answer, dict) else None
        if not isinstance(fd, int):
            raise HostError(f"{self._name}: QEMU does not tell the number of a descriptor: {answer!r:.100}")
        return f"/dev/fdset/{number}", fd

    def _there(self, slot: DiskSlot | PmemSlot) -> Plugged:
        plugged = self._plugged.get(slot.id)
        if plugged is None:
            raise NotFound(f"{self._name}: {slot.id}: there is nothing in it")
        return plugged
