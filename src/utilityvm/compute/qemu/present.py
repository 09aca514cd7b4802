"""The disks and persistent memory that a document has from the start, as requests to plug them in before the guest runs. Pure."""

from collections.abc import Iterator
from itertools import takewhile
from typing import Final

from utilityvm.compute.qemu.modify import DiskSlot, PmemSlot, check_attachment, pmem_device, settings, slot_of
from utilityvm.kit.errors import InvalidOptions, Problem, Unsupported
from utilityvm.schema.devices import Attachment
from utilityvm.schema.document import VirtualMachine
from utilityvm.schema.requests import ModifySettingRequest

_ROOT: Final = "root=/dev/pmem0"


def present(vm: VirtualMachine) -> list[tuple[str, ModifySettingRequest]]:
    """Return each device's path in the document, and the request for it."""
    if vm.devices is None:
        return []
    pmem = vm.devices.virtual_pmem.devices if vm.devices.virtual_pmem else {}
    disks = [
        (f'Scsi["{controller}"].Attachments["{lun}"]', f"Scsi/{controller}/Attachments/{lun}", disk)
        for controller, scsi in vm.devices.scsi.items()
        for lun, disk in scsi.attachments.items()
    ]
    memory = [(f'VirtualPMem.Devices["{slot}"]', f"VirtualPMem/Devices/{slot}", device) for slot, device in pmem.items()]
    return [
        (
            f"$.VirtualMachine.Devices.{path}",
            ModifySettingRequest(resource_path=f"VirtualMachine/Devices/{resource}", request_type="Add", settings=device),
        )
        for path, resource, device in [*disks, *memory]
    ]


def wrong_present(vm: VirtualMachine, controllers: int, pmem: int) -> Iterator[Problem]:
    """Yield what is wrong with the devices of a machine that has so many SCSI `controllers` and at most `pmem` devices.

    Fields that are not carried out are for others to refuse.
    """
    taken: set[str] = set()
    for path, request in present(vm):
        try:
            slot = slot_of(request, controllers, pmem)
            match slot:
                case DiskSlot():
                    check_attachment(request, settings(request, Attachment))
                case PmemSlot():
                    pmem_device(request)
                case None:
                    yield Problem(path, "invalid", "a place is a number")
                    continue
        except (InvalidOptions, Unsupported) as error:
            rule = "invalid" if isinstance(error, InvalidOptions) else "unsupported"
            yield Problem(path, rule, error.message.removeprefix(f"{request.resource_path}: "))
            continue
        if slot.id in taken:
            yield Problem(path, "invalid", f"there is another at place {slot.id}")
        taken.add(slot.id)


def root_slot(vm: VirtualMachine) -> str:
    """Return the name of the device that is the guest's root file system, ``""`` when none is."""
    kernel = vm.chipset.linux_kernel_direct if vm.chipset else None
    words = kernel.kernel_cmd_line.split() if kernel else []
    mine = takewhile(lambda word: word != "--", words)  # the rest is init's
    return PmemSlot(0).id if _ROOT in mine else ""
