"""The devices that a document has from the start, as requests to plug them in before the guest runs. Pure."""

from collections.abc import Iterator
from itertools import takewhile
from typing import Final

from utilityvm.compute.qemu.adapters import MAX_ADAPTERS, adapter, adapter_id
from utilityvm.compute.qemu.assign import NEEDS_MEMORY, address_of, guid_of, qemu_id
from utilityvm.compute.qemu.modify import DiskSlot, PmemSlot, check_attachment, pmem_device, settings, slot_of
from utilityvm.kit.errors import InvalidOptions, Problem, Unsupported
from utilityvm.schema.devices import Attachment, NetworkAdapter
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
    given = [(f'VirtualPci["{guid}"]', f"VirtualPci/{guid}", device) for guid, device in vm.devices.virtual_pci.items()]
    adapters = [
        (f'NetworkAdapters["{nic}"]', f"NetworkAdapters/{nic}", wanted) for nic, wanted in sorted(vm.devices.network_adapters.items())
    ]
    memory = [(f'VirtualPMem.Devices["{slot}"]', f"VirtualPMem/Devices/{slot}", device) for slot, device in pmem.items()]
    return [
        (
            f"$.VirtualMachine.Devices.{path}",
            ModifySettingRequest(resource_path=f"VirtualMachine/Devices/{resource}", request_type="Add", settings=device),
        )
        for path, resource, device in [*disks, *memory, *given, *adapters]
    ]


def wrong_present(vm: VirtualMachine, controllers: int, pmem: int) -> Iterator[Problem]:
    """Yield what is wrong with the devices of a machine that has so many SCSI `controllers` and at most `pmem` devices.

    Fields that are not carried out are for others to refuse.
    """
    taken: set[str] = set()
    count = len(vm.devices.network_adapters) if vm.devices else 0
    if count > MAX_ADAPTERS:
        yield Problem("$.VirtualMachine.Devices.NetworkAdapters", "unsupported", f"{count} adapters: at most {MAX_ADAPTERS}")
    for path, request in present(vm):
        try:
            if adapter_id(request):
                if settings(request, NetworkAdapter).iov_settings is None:  # otherwise it is refused for that
                    adapter(request)
                continue
            alone = _alone(request, controllers, pmem)
        except (InvalidOptions, Unsupported) as error:
            rule = "invalid" if isinstance(error, InvalidOptions) else "unsupported"
            yield Problem(path, rule, error.message.removeprefix(f"{request.resource_path}: "))
            continue
        yield from (Problem(path, "invalid", f"there is another {what}") for what in alone if what in taken)
        taken.update(alone)
        memory = vm.compute_topology.memory if vm.compute_topology else None
        if guid_of(request) is not None and memory is not None and memory.allow_overcommit:
            yield Problem(path, "unsupported", NEEDS_MEMORY)


def _alone(request: ModifySettingRequest, controllers: int, pmem: int) -> tuple[str, ...]:
    """Say what a device has for itself alone: its place, and a device of the host also its address.

    Raises:
        InvalidOptions, Unsupported: what is wrong with it.
    """
    if (guid := guid_of(request)) is not None:
        return f"at place {qemu_id(guid)}", f"of {address_of(request)}"
    slot = slot_of(request, controllers, pmem)
    match slot:
        case DiskSlot():
            check_attachment(request, settings(request, Attachment))
        case PmemSlot():
            pmem_device(request)
        case None:
            raise InvalidOptions("a place is a number")
    return (f"at place {slot.id}",)


def assigned(vm: VirtualMachine) -> dict[str, str]:
    """Return the addresses of the host's devices that a machine has from the start, by their paths in the document."""
    return {path: address_of(request) for path, request in present(vm) if guid_of(request) is not None}


def root_slot(vm: VirtualMachine) -> str:
    """Return the name of the device that is the guest's root file system, ``""`` when none is."""
    kernel = vm.chipset.linux_kernel_direct if vm.chipset else None
    words = kernel.kernel_cmd_line.split() if kernel else []
    mine = takewhile(lambda word: word != "--", words)  # the rest is init's
    return PmemSlot(0).id if _ROOT in mine else ""
