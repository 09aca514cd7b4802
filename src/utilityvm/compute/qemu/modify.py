"""A request to change a resource, read: what is to be plugged in, and where. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from utilityvm.compute.qemu.images import Format, Image
from utilityvm.compute.qemu.treatment import NOT_YET
from utilityvm.kit.errors import InvalidOptions, Unsupported
from utilityvm.schema.devices import Attachment, VirtualPMemDevice
from utilityvm.schema.node import Node
from utilityvm.schema.requests import ModifySettingRequest

LUNS: Final = 64
"""Disks on one controller."""

SLOTS: Final = 31
"""Places on one PCI bridge for what is plugged in; the first, 0, is not among them."""

PMEM_ALIGNMENT: Final = 2 << 20
"""What the size of persistent memory is a multiple of, in bytes: Linux maps it in pieces of this size."""

_SCSI: Final = re.compile(r"VirtualMachine/Devices/Scsi/(\d+)/Attachments/(\d+)")
_PMEM: Final = re.compile(r"VirtualMachine/Devices/VirtualPMem/Devices/(\d+)")

T = TypeVar("T")


class DiskSlot(msgspec.Struct, frozen=True):
    """A place on a SCSI controller."""

    controller: int
    lun: int

    @property
    def id(self) -> str:
        """QEMU's name of the disk in it."""
        return f"scsi{self.controller}-{self.lun}"


class PmemSlot(msgspec.Struct, frozen=True):
    """A number of a persistent memory device."""

    number: int

    @property
    def id(self) -> str:
        """QEMU's name of the device."""
        return f"pmem{self.number}"


def slot_of(request: ModifySettingRequest, controllers: int, pmem: int) -> DiskSlot | PmemSlot | None:
    """Return the slot that a request is about, None when it is about something else.

    Raises:
        InvalidOptions: the machine has no such slot: it has so many SCSI `controllers` and `pmem` devices.
    """
    if match := _SCSI.fullmatch(request.resource_path):
        disk = DiskSlot(int(match[1]), int(match[2]))
        if disk.controller >= controllers or disk.lun >= LUNS:
            has = f"{controllers} SCSI controllers of {LUNS} disks" if controllers else "no SCSI controller"
            raise InvalidOptions(f"{request.resource_path}: the machine has {has}")
        return disk
    if match := _PMEM.fullmatch(request.resource_path):
        number = int(match[1])
        if number >= pmem:
            raise InvalidOptions(f"{request.resource_path}: the machine has at most {pmem} persistent memory devices")
        return PmemSlot(number)
    return None


_LACKS: Final[Mapping[str, str]] = {
    "VirtualMachine/Devices/ComPorts/": "a serial port is part of the machine from its start: name it in the document",
    "VirtualMachine/Devices/VideoMonitor": "a screen is part of the machine from its start: name it in the document",
    "VirtualMachine/Devices/MappedPipes/": "pipes are Windows', which needs the driver for its Host Compute Service",
}


def lack(request: ModifySettingRequest) -> str:
    """Say why a request that is about no slot is not carried out."""
    return next((why for start, why in _LACKS.items() if request.resource_path.startswith(start)), NOT_YET)


def settings(request: ModifySettingRequest, kind: type[T]) -> T:
    """Return the settings of a request, which are a `kind` or what JSON has of one.

    Raises:
        InvalidOptions: they are not a `kind`.
    """
    if isinstance(request.settings, msgspec.Struct) and isinstance(request.settings, kind):
        return request.settings
    try:
        return msgspec.convert(request.settings, kind)
    except msgspec.ValidationError as error:
        raise InvalidOptions(f"{request.resource_path}: Settings: {error}") from error


def attachment(request: ModifySettingRequest) -> Attachment:
    """Return what is to be attached.

    Raises:
        InvalidOptions: the settings make no sense.
        Unsupported: parts of them that are not carried out.
    """
    wanted = settings(request, Attachment)
    _refuse_rest(request, wanted, {"type", "path", "read_only"})
    check_attachment(request, wanted)
    return wanted


def check_attachment(request: ModifySettingRequest, wanted: Attachment) -> None:
    """Refuse a disk whose values make no sense or are not carried out. See `attachment`."""
    if wanted.type not in {"VirtualDisk", "PassThru"}:
        raise Unsupported(f"{request.resource_path}: Type {wanted.type!r}: only VirtualDisk and PassThru are carried out")
    _absolute(request, wanted.path)


def pmem_device(request: ModifySettingRequest) -> VirtualPMemDevice:
    """Return the device that is to be added. See `attachment` for errors."""
    wanted = settings(request, VirtualPMemDevice)
    if not wanted.read_only:
        raise Unsupported(f"{request.resource_path}: ReadOnly false: persistent memory is read-only")
    _absolute(request, wanted.host_path)
    return wanted


def _absolute(request: ModifySettingRequest, path: str) -> None:
    if not path.startswith("/"):
        raise InvalidOptions(f"{request.resource_path}: {path!r} is no absolute path")


def _refuse_rest(request: ModifySettingRequest, wanted: Node, known: set[str]) -> None:
    for member in msgspec.structs.fields(wanted):
        if member.name not in known and getattr(wanted, member.name):
            raise Unsupported(f"{request.resource_path}: {member.encode_name} is not carried out by the QEMU driver")


# -- QEMU's words -------------------------------------------------------------------------------------------------------


def disk_node(slot: DiskSlot, image: Image, file: str, *, read_only: bool, below: Sequence[tuple[Image, str]] = ()) -> Mapping[str, object]:
    """Return the block node of an image that QEMU opens by the name `file`. Those `below`, the lowest first, have what it has not."""
    under: dict[str, object] | None = None
    for image_below, name in below:
        under = _node(image_below, name, under, read_only=True)
    return {"node-name": f"{slot.id}-disk", **_node(image, file, under, read_only=read_only)}


def _node(image: Image, file: str, under: dict[str, object] | None, *, read_only: bool) -> dict[str, object]:
    node: dict[str, object] = {
        "driver": image.format.value,
        "read-only": read_only,
        "discard": "unmap",
        "file": {"driver": "host_device" if image.device else "file", "filename": file},
    }
    if image.size:
        node["size"] = image.size
    if image.format is Format.QCOW2:
        node["backing"] = under
    return node


def disk_device(slot: DiskSlot) -> Mapping[str, object]:
    """Return the disk that the guest sees."""
    place = {"bus": f"scsi{slot.controller}.0", "channel": 0, "scsi-id": 0, "lun": slot.lun}
    errors = {"werror": "report", "rerror": "report"}  # else QEMU stops the VM when the host's disk is full, and waits for somebody
    return {"driver": "scsi-hd", "id": slot.id, "drive": f"{slot.id}-disk"} | errors | place


def pmem_backend(slot: PmemSlot, file: str, size: int) -> Mapping[str, object]:
    """Return the memory that is the file which QEMU opens by the name `file`; all machines of a host share its pages."""
    words = {"mem-path": file, "size": size, "share": True, "readonly": True}
    return {"qom-type": "memory-backend-file", "id": f"{slot.id}-memory"} | words


def pmem_place(number: int) -> tuple[int, int]:
    """Return the bridge, from 0, and the slot on it of the persistent memory device `number`. The guest finds it by this place."""
    return number // SLOTS, number % SLOTS + 1


def behind_bridge(number: int) -> Mapping[str, object]:
    """Return how QEMU is told that a device is in the place `number`."""
    bridge, slot = pmem_place(number)
    return {"bus": f"bridge{bridge}", "addr": f"{slot:#x}"}


def pmem_driver(slot: PmemSlot, address: int = 0) -> Mapping[str, object]:
    """Return the device that the guest sees, at an `address` of its memory that QEMU chooses when it is 0."""
    place = {"memaddr": address} if address else {}
    return {"driver": "virtio-pmem-pci", "id": slot.id, "memdev": f"{slot.id}-memory", **place, **behind_bridge(slot.number)}
