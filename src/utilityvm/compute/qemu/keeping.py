"""What a machine that is saved has been given: what of it its clones can have, and of which files its disks are copied."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, final

import msgspec
from msgspec import structs

from utilityvm.compute.qemu.growth import Growth
from utilityvm.compute.qemu.hotplug import Hotplug, Layer, Plugged
from utilityvm.compute.qemu.images import Format
from utilityvm.compute.qemu.modify import DiskSlot, PmemSlot
from utilityvm.compute.qemu.monitor import Monitor
from utilityvm.compute.qemu.nics import Nics
from utilityvm.compute.qemu.plan9 import Shares
from utilityvm.compute.qemu.records import NONE_KNOWN
from utilityvm.kit.errors import HostError, StateError, Unsupported
from utilityvm.kit.files import digest, identity
from utilityvm.kit.ids import VmId
from utilityvm.store.devices import Devices, DiskRecord, FileRecord, PmemRecord

MOST_FILES: Final = 64
"""Files that a disk may be in. Where the file system cannot share blocks, each machine that goes on from another adds one."""

_NAMELESS: Final = "/proc/"
_HINT: Final = "remove what can be removed, and save then; persistent memory stays in a machine, a SCSI disk does not"


class Content(msgspec.Struct, frozen=True):
    """A file of a disk that the guest writes to: its `name` among those of the template, and the open file that it is a copy of.

    One that is `read_only` nobody changes.
    """

    name: str
    fd: int
    read_only: bool


@final
class Keeping:
    """What the machine `vm_id` has been given, when it is saved.

    `describe` tells what its tables say of it, and raises where something is on its way; `others` names what no clone can have.
    """

    def __init__(self, vm_id: VmId, describe: Callable[[], Devices], hotplug: Hotplug, others: Callable[[Devices], Iterable[str]]) -> None:
        self._id, self._describe, self._hotplug, self._others = vm_id, describe, hotplug, others
        self._files: dict[str, FileRecord] = {}
        self._what = ""

    async def prepare(self, what: str, known: Mapping[str, str] = NONE_KNOWN, *, by_content: bool = True) -> None:
        """Find out whether all of it can be kept, while the guest runs; `what` is what becomes of it, in words. Files that clones share are
        read, so that they are known `by_content`, also where they lie elsewhere, unless their digest is `known` by their identity; or, for
        clones that are made at once, they are known by their names and times alone.

        Raises:
            Unsupported: something cannot be kept; all of that is named.
            StateError: something is on its way.
            HostError: a file cannot be read.
        """
        self._what = what
        shared = {plugged.identity: plugged.path for plugged in self._shared(self._checked())}
        try:
            found = await asyncio.to_thread(_digests, shared, known) if by_content else dict.fromkeys(shared, "")
        except OSError as error:
            raise HostError(f"vm {self._id}: {error.filename}: cannot be read: {error.strerror}") from error
        self._files = {name: FileRecord(sha256=sha256, identity=name) for name, sha256 in found.items()}

    async def kept(self, monitor: Monitor) -> tuple[Devices, tuple[Content, ...]]:
        """Say what there is, now that the guest stands still, and of which files its disks are to be copied.

        Raises:
            Unsupported: something cannot be kept.
            StateError: something has come since `prepare`, or is on its way.
            QmpError, ConnectionLost, DeadlineExceeded: QEMU does not tell where things are.
        """
        addresses = _addresses(await monitor.execute("query-memory-devices"))
        devices, there, contents = self._checked(), self._hotplug.plugged, list[Content]()
        if any(plugged.identity not in self._files for plugged in self._shared(devices)):
            raise StateError(f"vm {self._id}", "given another device meanwhile", f"be {self._what}")

        def disk(record: DiskRecord) -> DiskRecord:
            slot = _slot(record)
            plugged = there[slot]
            if plugged.read_only:
                return structs.replace(record, file=self._files[plugged.identity])
            copies = [
                Content(f"{slot}-{at}{_suffix(layer)}", layer.fd, read_only=layer.fd != plugged.fd)
                for at, layer in enumerate(_layers(plugged))
            ]
            contents.extend(copies)
            name = f"{self._id}:{slot}" if record.host_path.startswith(_NAMELESS) else record.host_path
            return structs.replace(record, host_path=name, content=tuple(copy.name for copy in copies))

        def device(record: PmemRecord) -> PmemRecord:
            slot = _slot(record)
            return structs.replace(record, address=addresses.get(slot, 0), file=self._files[there[slot].identity])

        kept = structs.replace(devices, disks=tuple(map(disk, devices.disks)), pmem=tuple(map(device, devices.pmem)))
        return kept, tuple(contents)

    def _checked(self) -> Devices:
        devices = self._describe()
        if lacks := [*_lacks(devices, self._hotplug.plugged), *self._others(devices)]:
            raise Unsupported(f"vm {self._id}: cannot be {self._what}: it has {', '.join(lacks)}", hint=_HINT)
        return devices

    def _shared(self, devices: Devices) -> list[Plugged]:
        there = [self._hotplug.plugged[slot] for slot in _slots(devices)]
        return [plugged for plugged in there if plugged.read_only]


def not_kept(nics: Nics, growth: Growth, shares: Shares) -> Callable[[Devices], list[str]]:
    """Return who names what no clone of a machine with these can have."""
    return lambda devices: [*nics.there, *growth.there, *shares.unknown({share.name for share in devices.shares})]


def _lacks(devices: Devices, there: Mapping[str, Plugged]) -> Iterator[str]:
    """Say which of the devices that are there cannot be kept, and why."""
    told = _slots(devices)
    for slot, plugged in there.items():
        what = f"{plugged.path} ({slot})"
        if slot not in told:
            yield f"{what}, which is in no table of the VM"
        elif plugged.image is None or plugged.image.device:
            yield f"{what}, a disk of the host"
        elif not plugged.read_only and plugged.image.format not in {Format.RAW, Format.QCOW2}:
            yield f"{what}, a disk that is written and neither raw nor qcow2"
        elif len(plugged.below) >= MOST_FILES:
            yield f"{what}, a disk in {len(plugged.below) + 1} files, of which one may have {MOST_FILES}"
        elif plugged.read_only and plugged.path.startswith(_NAMELESS):
            yield f"{what}, a file without a name"
        elif plugged.read_only and identity(Path(plugged.path)) != plugged.identity:
            yield f"{what}, whose file was changed or removed meanwhile"


def _digests(shared: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    return {name: known.get(name) or digest(Path(path)) for name, path in shared.items()}


def _slots(devices: Devices) -> list[str]:
    return [*map(_slot, devices.disks), *map(_slot, devices.pmem)]


def _slot(record: DiskRecord | PmemRecord) -> str:
    return DiskSlot(record.controller, record.lun).id if isinstance(record, DiskRecord) else PmemSlot(record.slot).id


def _layers(plugged: Plugged) -> tuple[Layer, ...]:
    assert plugged.image is not None  # noqa: S101 (it was checked)
    return (*plugged.below, Layer(plugged.fd, plugged.image))


def _suffix(layer: Layer) -> str:
    """Return how the name of a file ends by which its format is known (`images.inspect`)."""
    return ".qcow2" if layer.image.format is Format.QCOW2 else ".vhd" if layer.image.size else ".raw"


def _addresses(told: object) -> dict[str, int]:
    """Return where QEMU has persistent memory in its guest's memory, by the ids of the devices."""
    found = dict[str, int]()
    for device in told if isinstance(told, list) else []:
        data = device.get("data") if isinstance(device, dict) else None
        if isinstance(data, dict) and isinstance(data.get("id"), str) and isinstance(data.get("memaddr"), int):
            found[data["id"]] = data["memaddr"]
    return found
