"""What a clone gets of its template's disks and shared folders: pure, in the order in which the template had them."""

import msgspec

from utilityvm.kit.errors import InvalidOptions, Problem
from utilityvm.options.paths import PathFlavour, base_name, join
from utilityvm.options.resources import ScsiMount, VsmbShare
from utilityvm.options.rules_wcow import MAX_SCSI_CONTROLLERS, MAX_SCSI_LUNS, has_slot
from utilityvm.options.wcow import TemplateConfigWCOW
from utilityvm.plan.effects import CopyDisk, Effect, MakeFolder
from utilityvm.plan.windows import ScsiSlot, VsmbEntry, smb_options
from utilityvm.schema.devices import VirtualSmbShare

FAILURE = "failed while cloning: "


class Cloned(msgspec.Struct, frozen=True):
    """A clone's disks and shares, and what must be done for them first."""

    effects: tuple[Effect, ...]
    slots: tuple[ScsiSlot, ...]
    shares: tuple[VirtualSmbShare, ...]
    entries: tuple[VsmbEntry, ...]


def clone(template: TemplateConfigWCOW, scratch_folder: str, flavour: PathFlavour, unique: str) -> Cloned:
    """Plan a clone's resources. Disks that the guest can write to are copied below `scratch_folder`, each but the scratch itself
    to a new folder whose name ends with `unique`. Of two disks at one place the later one stays.

    Raises:
        InvalidOptions: a disk at a place that no SCSI controller has.
    """
    effects, slots, entries, shares = list[Effect](), dict[tuple[int, int], ScsiSlot](), list[VsmbEntry](), list[VirtualSmbShare]()
    for number, resource in enumerate(template.resources):
        if isinstance(resource, ScsiMount):
            _check(resource, number)
            path, needed = _disk(resource, scratch_folder, flavour, unique)
            effects += needed
            slots[resource.controller, resource.lun] = _slot(resource, path)
        else:
            entries.append(_entry(resource))
            shares.append(_share(resource))
    return Cloned(tuple(effects), tuple(slots.values()), tuple(shares), tuple(entries))


def _check(disk: ScsiMount, number: int) -> None:
    if not has_slot(disk):
        place = f"controllers are 0 to {MAX_SCSI_CONTROLLERS - 1}, LUNs 0 to {MAX_SCSI_LUNS - 1}"
        message = f"{FAILURE}no place {disk.controller}:{disk.lun} on a SCSI controller for {disk.host_path}: {place}"
        raise InvalidOptions(message, problems=[Problem(f"$.template_config.resources[{number}]", "template_config", message)])


def _disk(disk: ScsiMount, scratch_folder: str, flavour: PathFlavour, unique: str) -> tuple[str, list[Effect]]:
    """Return the path of the clone's disk, and how it comes there."""
    if disk.read_only:
        return disk.host_path, []
    folder, effects = scratch_folder, list[Effect]()
    if (disk.controller, disk.lun) != (0, 0):
        folder = join(flavour, scratch_folder, f"clone-mount-{disk.controller}-{disk.lun}{unique}")
        effects.append(MakeFolder(folder, f"{FAILURE}error while creating directory for scsi mounts of clone vm: "))
    path = join(flavour, folder, base_name(flavour, disk.host_path))
    return path, [*effects, CopyDisk(disk.host_path, path, FAILURE)]


def _slot(disk: ScsiMount, path: str) -> ScsiSlot:
    return ScsiSlot(
        controller=disk.controller,
        lun=disk.lun,
        host_path=path,
        uvm_path=disk.uvm_path,
        attachment_type=disk.attachment_type or "VirtualDisk",
        read_only=disk.read_only,
    )


def _entry(share: VsmbShare) -> VsmbEntry:
    return VsmbEntry(
        name=share.name,
        host_path=share.host_path,
        guest_path=share.guest_path,
        read_only="ReadOnly" in share.options,
        of_files=bool(share.allowed_files),
        options=smb_options(share.options),
        allowed_files=share.allowed_files,
    )


def _share(share: VsmbShare) -> VirtualSmbShare:
    return VirtualSmbShare(
        name=share.name, path=share.host_path, allowed_files=list(share.allowed_files), options=smb_options(share.options)
    )
