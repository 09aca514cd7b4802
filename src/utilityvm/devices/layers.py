"""Layers of a container's root file system: read-only images for a Linux guest, and their union in either guest."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, final

import msgspec

from utilityvm.devices.ports import Owner
from utilityvm.devices.scsi import Scsi
from utilityvm.devices.vpmem import VPMem
from utilityvm.kit.errors import NotFound, NoVPMem
from utilityvm.schema.container import Layer
from utilityvm.schema.guest_requests import CombinedLayers, GuestRequest
from utilityvm.schema.requests import ModifySettingRequest

_READ_ONLY: Final = ("ro",)


class Bus(StrEnum):
    """What a layer came by."""

    VPMEM = "vpmem"
    SCSI = "scsi"


class ImageLayer(msgspec.Struct, frozen=True):
    """An image that the guest has mounted at `guest_path`. `fell_back` says why it is a SCSI disk, ``""`` for persistent memory."""

    host_path: str
    guest_path: str
    bus: Bus
    fell_back: str = ""


@final
class Layers:
    """The layers of one VM, on its persistent memory and SCSI disks."""

    def __init__(self, owner: Owner, vpmem: VPMem, scsi: Scsi) -> None:
        self._owner, self._vpmem, self._scsi = owner, vpmem, scsi
        self.mount_points = 0
        """How many paths have been given out by `mount_point`."""

    async def add(self, host_path: str) -> ImageLayer:
        """Let a Linux guest mount an image to read: as persistent memory, and where that has no place for it as a SCSI disk.

        What is returned says which. One image may be added often; give each back by `remove`.

        Raises:
            Exhausted: there is no place for a SCSI disk either.
            UtilityVMError: as `VPMem.add` and `Scsi.add`.
        """
        self._owner.needs_linux("a layer's image")
        reason = "the VM's devices are backed by physical memory"
        if not self._owner.fully_physically_backed:
            try:
                device = await self._vpmem.add(host_path)
            except NoVPMem as error:
                reason = error.message
            else:
                return ImageLayer(host_path, device.guest_path, Bus.VPMEM)
        disk = await self._scsi.add(host_path, self._mount_of(host_path), read_only=True, options=_READ_ONLY)
        return ImageLayer(host_path, disk.guest_path, Bus.SCSI, reason)

    def mount_point(self) -> str:
        """Return a path in a Linux guest where nothing has been mounted yet."""
        self.mount_points += 1
        return f"/run/mounts/m{self.mount_points}"

    async def remove(self, layer: ImageLayer) -> None:
        """Give back what `add` returned. When that fails the same call may be made again.

        Raises:
            UtilityVMError: as `VPMem.remove` and `Scsi.remove`.
        """
        await (self._vpmem if layer.bus is Bus.VPMEM else self._scsi).remove(layer.host_path)

    async def combine_lcow(self, layer_paths: Sequence[str], scratch_path: str, root_path: str) -> None:
        """Let a Linux guest show layers (guest paths, the topmost first) as one file system at `root_path`.

        What is written goes to `scratch_path`; ``""`` makes it read-only.

        Raises:
            Unsupported: the guest is Windows.
            UtilityVMError: see `UtilityVM.modify`.
        """
        self._owner.needs_linux("combining layers by their paths alone")
        folders = [Layer(path=path) for path in layer_paths]
        await self._ask("Add", CombinedLayers(container_root_path=root_path, layers=folders, scratch_path=scratch_path))

    async def combine_wcow(self, layers: Sequence[Layer], root_path: str) -> None:
        """Let a Windows guest show layers as one file system at `root_path`, the path of the scratch.

        Raises:
            Unsupported: the guest is Linux.
            UtilityVMError: see `UtilityVM.modify`.
        """
        self._owner.needs_windows("combining layers by their ids")
        await self._ask("Add", CombinedLayers(container_root_path=root_path, layers=list(layers)))

    async def remove_combined(self, root_path: str) -> None:
        """Undo `combine_lcow` or `combine_wcow`; the layers themselves stay.

        Raises:
            UtilityVMError: see `UtilityVM.modify`.
        """
        await self._ask("Remove", CombinedLayers(container_root_path=root_path))

    def _mount_of(self, host_path: str) -> str:
        """Return where the guest has the image, or is to have it: an image is mounted once, whoever asks."""
        try:
            return self._scsi.guest_path(host_path)
        except NotFound:
            return self.mount_point()

    async def _ask(self, request_type: str, settings: CombinedLayers) -> None:
        guest = GuestRequest(request_type=request_type, resource_type="CombinedLayers", settings=settings)
        await self._owner.modify(ModifySettingRequest(guest_request=guest))
