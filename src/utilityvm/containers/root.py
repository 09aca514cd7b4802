"""The root file system of a container in a Linux guest: read-only layers, a disk for what is written, and their union.

The guest unmounts in the reverse order: the union, the disk, the layers.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final, final

import msgspec

from utilityvm.containers.document import ContainerId, folder
from utilityvm.containers.releases import Releases, Rest
from utilityvm.containers.scratch import SCRATCH_FORMAT, fill
from utilityvm.devices.layers import ImageLayer
from utilityvm.devices.ports import Owner
from utilityvm.devices.scsi import DiskAccess
from utilityvm.devices.tables import Tables
from utilityvm.kit.aio import together
from utilityvm.kit.errors import NotFound, Unsupported
from utilityvm.plan.facts import Platform
from utilityvm.store.nameless import DiskFile, nameless

_DISCARD: Final = ("discard",)  # what is deleted is given back to the host


@final
class ScratchDisk:
    """A disk that containers write to: where it is on the host and in the guest. Its `file`, if it is ours, goes with the last of them."""

    def __init__(self, host_path: str, guest_path: str, file: DiskFile | None = None) -> None:
        self.host_path, self.guest_path = host_path, guest_path
        self.file, self._users = file, 0

    def take(self) -> None:
        """Count one more container."""
        self._users += 1

    def close(self) -> None:
        """Count one less, and close the file after the last: its path may be another file's from then on."""
        self._users -= 1
        if self._users == 0 and self.file is not None:
            self.file.close()


class RootFs(msgspec.Struct, frozen=True):
    """A root file system in the guest: its `path`, where on which disk what is written goes, and where its `layers` are. Without a disk it
    is read-only.
    """

    path: str
    scratch_path: str = ""
    scratch: ScratchDisk | None = None
    layers: tuple[str, ...] = ()


class Parts(msgspec.Struct, frozen=True):
    """How each part of one container's root file system is given back to the VM's `tables`; what was taken is put on `taken`."""

    tables: Tables
    taken: Releases

    def layer(self, layer: ImageLayer) -> None:
        """A layer was mounted."""
        self.taken.push(f"layer {layer.host_path}", partial(self.tables.layers.remove, layer))

    def disk(self, disk: ScratchDisk) -> None:
        """A disk was mounted, and counts the container."""
        release = partial(self.tables.scsi.remove if disk.file is None else self._let_go, disk.host_path)
        self.taken.push(f"scratch disk {disk.host_path}", release, disk.close)

    def union(self, path: str) -> None:
        """All of it is put together at a path of the guest."""
        self.taken.push("union of layers", partial(self.tables.layers.remove_combined, path))

    async def _let_go(self, host_path: str) -> Rest | None:
        """Give back a disk of ours, which nobody else can want: its guest lets go of it, and then nobody waits for the host to do so.

        QEMU takes 50 ms for that, in which it waits for more to do.
        """
        rest = partial(self.tables.scsi.remove, host_path)
        return rest if await self.tables.scsi.leave_guest(host_path) else None


class Rooms(msgspec.Struct, frozen=True):
    """What root file systems are made of: the VM, which knows the host's places for what is new, and its tables of devices."""

    owner: Owner
    tables: Tables

    async def mount(
        self, container_id: ContainerId, layers: Sequence[str], scratch: ScratchDisk | str | int | None, taken: Releases
    ) -> RootFs:
        """Mount layers (images on the host, the topmost first) with a disk for what is written; what is taken is put on `taken`.

        `scratch` is the size of a new disk in bytes, the path of the caller's own, one that another container has, or None for none.

        Raises:
            UtilityVMError: as `Layers.add`, `Scsi.add` and `Layers.combine_lcow`, with what it was about.
        """
        parts, layer_paths = Parts(self.tables, taken), dict[str, str]()
        disks: list[ScratchDisk] = []

        async def layer(host_path: str) -> None:
            added = await self.tables.layers.add(host_path)
            parts.layer(added)
            layer_paths[host_path] = added.guest_path

        async def disk(wish: ScratchDisk | str | int) -> None:
            disks.append(await self._disk(wish))
            parts.disk(disks[-1])

        await together(*map(layer, layers), *([] if scratch is None else [disk(scratch)]))
        root = f"{folder(container_id)}/rootfs"
        scratch_path = f"{disks[0].guest_path}/scratch/{container_id}" if disks else ""
        # Before it is there: who gives up hears of it when it is, and a guest takes the removal of what is not there for done.
        parts.union(root)
        await self.tables.layers.combine_lcow([layer_paths[path] for path in layers], scratch_path, root)
        return RootFs(root, scratch_path, disks[0] if disks else None, tuple(layer_paths.values()))

    async def _disk(self, wish: ScratchDisk | str | int) -> ScratchDisk:
        disk = await self._new_disk(wish) if isinstance(wish, int) else self._own_disk(wish) if isinstance(wish, str) else wish
        disk.take()
        try:
            await self.tables.scsi.add(disk.host_path, disk.guest_path, options=_DISCARD, access=DiskAccess.INDIVIDUAL)
        except BaseException:
            disk.close()
            raise
        return disk

    async def _new_disk(self, size: int) -> ScratchDisk:
        if self.owner.host.platform is Platform.HYPERV:
            hint = "give scratch=PATH, a VHDX of your own with ext4 on it, or no size for a read-only root"
            raise Unsupported(f"{self.owner.name}: scratch disks are made on hosts of Linux", hint=hint)
        layout = self.owner.host.layout()
        file = nameless(layout.scratch)
        try:
            await fill(file, layout.disks, size, SCRATCH_FORMAT)
        except BaseException:
            file.close()
            raise
        return ScratchDisk(file.path, self.tables.layers.mount_point(), file)

    def _own_disk(self, host_path: str) -> ScratchDisk:
        """Return the caller's disk where the guest has it, if another container writes to it already."""
        try:
            return ScratchDisk(host_path, self.tables.scsi.guest_path(host_path))
        except NotFound:
            return ScratchDisk(host_path, self.tables.layers.mount_point())
