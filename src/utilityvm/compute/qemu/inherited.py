"""What a machine has from the one that it goes on from: disks of its own, and the files that all of its kind share."""

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

from msgspec import structs

from utilityvm.compute.qemu.hotplug import Hotplug, Layer, Plugged
from utilityvm.compute.qemu.images import Format, Image, image_of
from utilityvm.compute.qemu.modify import DiskSlot, PmemSlot
from utilityvm.compute.qemu.overlay import overlay
from utilityvm.kit.errors import Corrupt, HostError, NotFound, UtilityVMError
from utilityvm.kit.files import share_blocks, write_all
from utilityvm.store.devices import Devices, DiskRecord, R, ShareRecord, find
from utilityvm.store.nameless import nameless

_SIZE_AT: Final = 24  # of a qcow2 image's header


@final
class Inherited:
    """What one clone has of what its origin, called `name` in errors, had been given. It is opened and made at once; `close` lets go of
    what was not given away by `plug_in`.

    `contents` are the origin's files of disks that are written to, by their names, and stay the caller's. A clone writes to a file without
    a name in `scratch`, which shares the last one's blocks or lies over it. A file that all read is looked for where it was, and then by
    its own name in `elsewhere`.

    Raises:
        NotFound, Unsupported: a file or folder that is shared is gone, or the file is another one now.
        Corrupt: a disk's file is not there, or not as it was written.
        HostError: a file cannot be opened, or none be made.
    """

    def __init__(self, name: str, devices: Devices, contents: Mapping[str, int], scratch: Path, elsewhere: Path) -> None:
        self._contents, self._scratch, self._elsewhere = contents, scratch, elsewhere
        self._there: list[tuple[DiskSlot | PmemSlot, Plugged, int]] = []
        try:
            pmem = [self._shared(record, PmemSlot(record.slot), record.address) for record in devices.pmem]
            disks = [self._disk(record, DiskSlot(record.controller, record.lun)) for record in devices.disks]
            for share in devices.shares:
                _check_folder(share)
        except BaseException as error:
            self.close()
            if isinstance(error, UtilityVMError):
                error.during(name)
            if isinstance(error, OSError):
                raise HostError(f"{name}: what it has been given cannot be opened: {error.strerror}") from error
            raise
        self.devices = structs.replace(devices, pmem=tuple(pmem), disks=tuple(disks))
        """The records of all of it, with the paths at which it was found."""

    async def plug_in(self, hotplug: Hotplug) -> None:
        """Give all of it to a QEMU that has not yet read the state of its devices. What is open is its own from then on.

        Raises:
            HostError, ConnectionLost, DeadlineExceeded: it cannot be plugged in.
        """
        while self._there:
            slot, plugged, address = self._there.pop(0)
            await hotplug.inherit(slot, plugged, address)

    def close(self) -> None:
        """Let go of what nobody has taken. A second call does nothing."""
        while self._there:
            self._there.pop()[1].close()

    def _disk(self, record: DiskRecord, slot: DiskSlot) -> DiskRecord:
        return self._own(record, slot) if record.content else self._shared(record, slot)

    def _own(self, record: DiskRecord, slot: DiskSlot) -> DiskRecord:
        plugged = Plugged(record.host_path, read_only=False)
        self._there.append((slot, plugged, 0))
        for name in record.content:
            if name not in self._contents:
                raise Corrupt(f"{name}, in which a disk of it is, is missing")
            image = image_of(name, self._contents[name])
            plugged.below = (*plugged.below, Layer(os.dup(self._contents[name]), image))
        self._write_over(plugged)
        return record

    def _write_over(self, plugged: Plugged) -> None:
        last, file = plugged.below[-1], nameless(self._scratch)
        plugged.fd = file.fd
        if share_blocks(last.fd, file.fd):
            plugged.image, plugged.below = last.image, plugged.below[:-1]
            os.close(last.fd)
            return
        plugged.image = Image(plugged.path, Format.QCOW2, 0, device=False)
        try:
            write_all(file.fd, overlay(_size(last)), 0)
        except OSError as error:
            raise HostError(f"{self._scratch}: no disk can be made here: {error.strerror}") from error

    def _shared(self, record: R, slot: DiskSlot | PmemSlot, address: int = 0) -> R:
        here = find(record, self._elsewhere)
        plugged = Plugged(here.host_path)
        self._there.append((slot, plugged, address))
        plugged.open(device=False)
        return here


def _check_folder(share: ShareRecord) -> None:
    if not Path(share.host_path).is_dir():
        raise NotFound(f"{share.host_path}, a folder that it shares, is gone", hint="make the folder, or the template without it")


def _size(layer: Layer) -> int:
    """Return how many bytes the disk has that a file is."""
    if layer.image.format is Format.QCOW2:
        (size,) = struct.unpack(">Q", os.pread(layer.fd, 8, _SIZE_AT))
        return int(size)
    return layer.image.size or os.fstat(layer.fd).st_size
