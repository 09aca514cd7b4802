"""A VM becomes a template or a file; and what is told the guest of one that goes on from these, or runs on."""

import time
from collections.abc import Awaitable, Callable, Coroutine
from os import PathLike
from pathlib import Path
from typing import Any

import msgspec

from utilityvm.compute.modify import in_two_halves
from utilityvm.compute.ports import Machine
from utilityvm.devices import resources
from utilityvm.devices.plan9 import Plan9
from utilityvm.devices.scsi import Scsi
from utilityvm.devices.tables import Tables
from utilityvm.devices.vsmb import SmbShare
from utilityvm.guest.connection import GuestConnection
from utilityvm.kit.aio import together
from utilityvm.kit.errors import Unsupported
from utilityvm.kit.ids import RuntimeId, VmId
from utilityvm.options.lcow import OptionsLCOW, TemplateConfig
from utilityvm.options.resources import CloneableResource, ScsiMount, VsmbShare
from utilityvm.options.wcow import OptionsWCOW, TemplateConfigWCOW
from utilityvm.plan.windows import words_of
from utilityvm.vm.failed_start import Phase
from utilityvm.vm.fork import of_its_own
from utilityvm.vm.given import Given

Wait = Callable[[], Awaitable[object]]
"""Waits for a VM's end."""


async def save_as_template(
    vm_id: VmId, options: OptionsLCOW | OptionsWCOW, system: Machine, tables: Tables, given: Given
) -> tuple[TemplateConfig | TemplateConfigWCOW, bool]:
    """See `UtilityVM.save_as_template`; `given` is what the VM has. Returns also whether the machine stays, as the template."""
    if not options.is_template:
        raise Unsupported(f"vm {vm_id}: was not created to become a template", hint="is_template=True")
    await given.settled()
    if isinstance(options, OptionsLCOW):
        return TemplateConfig(uvm_id=vm_id, create_options=options), await system.save(options, given)
    config = TemplateConfigWCOW(uvm_id=vm_id, resources=_cloneable(vm_id, tables), create_options=options)
    return config, await system.save(None, given)


def _cloneable(vm_id: VmId, tables: Tables) -> tuple[CloneableResource, ...]:
    """Return what a clone gets of a Windows template's: its folders, then its disks, by their places."""
    others = [f"the network adapter {nic.nic_id}" for nic in tables.network.adapters]
    others += [f"the device {device.device_id}" for device in tables.vpci.devices]
    if others:
        raise Unsupported(f"vm {vm_id}: no clone could have {', '.join(others)}", hint="remove what is named first")
    return (*map(_folder, tables.vsmb.shares), *_disks(tables.scsi))


def _folder(share: SmbShare) -> VsmbShare:
    return VsmbShare(
        host_path=share.host_path,
        name=share.name,
        allowed_files=share.allowed_files,
        guest_path=share.guest_path,
        options=words_of(share.options),
    )


def _disks(scsi: Scsi) -> list[ScsiMount]:
    return [
        ScsiMount(
            host_path=disk.host_path,
            uvm_path=disk.guest_path,
            controller=disk.controller,
            lun=disk.lun,
            read_only=disk.read_only,
            attachment_type=disk.type,
        )
        for disk in sorted(scsi.disks, key=lambda disk: (disk.controller, disk.lun))
    ]


class Where(msgspec.Struct, frozen=True):
    """Where a VM is saved to, and what it has been given."""

    path: str | PathLike[str]
    given: Given


async def save(vm_id: VmId, options: OptionsLCOW | OptionsWCOW, system: Machine, where: Where, end: Wait) -> None:
    """See `UtilityVM.save`."""
    alone = of_its_own(vm_id, options, "saved")
    await where.given.settled()
    await system.save(alone, where.given, Path(where.path))
    await end()


async def remount(guest: GuestConnection, system: Machine, plan9: Plan9, phase: Phase) -> None:
    """Let a guest have the folders again that its template had: the connections to who served them have ended.

    Raises:
        UtilityVMError: one cannot be served, or not be mounted.
    """
    phase.now = "the folders that it shares with its host"
    for request in plan9.remounts():
        await in_two_halves(request, system.modify, guest.client.modify, phase.name)


async def resume(going_on: Coroutine[Any, Any, None], guest: GuestConnection | None) -> None:
    """Let a VM run on by `going_on`, and its `guest`, if there is one to be told, know the time. It is told while it stands still: so it
    finds it as soon as it runs, and who waits does not wait for one after the other.

    Raises:
        UtilityVMError: as `going_on`, and as `GuestClient.set_clock`.
    """
    if guest is None:
        await going_on
    else:
        await together(guest.client.set_clock(resources.clock(time.time_ns())), going_on)


class Who(msgspec.Struct, frozen=True):
    """Whose guest it is: `wakes` says that it is the same VM that was saved, at a later time."""

    vm_id: VmId
    options: OptionsLCOW | OptionsWCOW
    runtime_id: RuntimeId
    wakes: bool


async def introduce(guest: GuestConnection, who: Who, phase: Phase) -> None:
    """Tell a guest who it is, as far as it cannot know: a Windows guest its address, a Linux guest that goes on
    from another the time and its names, one that has slept the time.

    Raises:
        GuestError, ConnectionLost: it does not take it.
    """
    if isinstance(who.options, OptionsWCOW):
        phase.now = "the guest to take its socket address"
        await guest.client.modify(resources.hvsocket_address(who.runtime_id))
    elif who.wakes:
        phase.now = "the guest to set its clock"
        await guest.client.modify(resources.clock(time.time_ns()))
    elif who.options.is_clone:
        phase.now = "the guest to go on as another"
        await guest.client.modify(resources.identity(time.time_ns(), who.vm_id))
