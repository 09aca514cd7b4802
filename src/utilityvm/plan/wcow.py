"""A Windows guest's options become a document: pure, in the original's order of steps, so that errors come in its order too."""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import structs

from utilityvm.kit.errors import HostError, NotFound, Unsupported
from utilityvm.options.paths import PathFlavour, join
from utilityvm.options.rules import verify
from utilityvm.options.wcow import OptionsWCOW
from utilityvm.plan.clone import clone
from utilityvm.plan.effects import CopyDisk, Effect, GrantAccess, MakeFolder
from utilityvm.plan.facts import Facts
from utilityvm.plan.machine import hv_socket, storage_qos, whole
from utilityvm.plan.normalize import Warn
from utilityvm.plan.topology import plan_topology
from utilityvm.plan.windows import CLONE_NAMESPACE, ScsiSlot, VsmbEntry, default_options, saveable
from utilityvm.schema.devices import Attachment, Devices, Scsi, VirtualSmb, VirtualSmbShare
from utilityvm.schema.document import (
    Chipset,
    ComputeSystem,
    GuestConnection,
    RestoreState,
    Topology,
    Uefi,
    UefiBootEntry,
    VirtualMachine,
)
from utilityvm.schema.registry import RegistryChanges, RegistryKey, RegistryValue
from utilityvm.wire.services import WINDOWS_BRIDGE_PORT

DIRECT_MAPPING_IN_MB: Final = 1024
_NAME, _TEMPLATE_DISK, _SCRATCH_DISK = "UtilityVM", "SystemTemplate.vhdx", "sandbox.vhdx"


class Layers(msgspec.Struct, frozen=True):
    """Where the guest's files are: `uvm_folder` is the layer that has the utility VM, `scratch_folder` the layer to write to.

    `effects` must be carried out before the VM is planned.
    """

    uvm_folder: str
    scratch_folder: str
    effects: tuple[Effect, ...]


class WcowPlan(msgspec.Struct, frozen=True):
    """What is to be created, what must be done for it first, and what the VM object begins with.

    Memory is in MiB; `listen_ports` are in the order of listening; `template_id` is ``""`` unless it is a clone.
    """

    document: ComputeSystem
    effects: tuple[Effect, ...]
    processor_count: int
    memory_size_in_mb: int
    listen_ports: tuple[int, ...]
    slots: tuple[ScsiSlot, ...]
    shares: tuple[VsmbEntry, ...]
    namespaces: tuple[str, ...]
    template_id: str

    scsi_controller_count: Final = 1


def image_folder(flavour: PathFlavour, layer: str) -> str:
    """Return where a layer has the utility VM, if it has one."""
    return join(flavour, layer, _NAME)


def paths_looked_at(options: OptionsWCOW, flavour: PathFlavour) -> tuple[str, ...]:
    """Return every path whose existence planning asks about, as the facts' `files_present` must spell them."""
    images = [image_folder(flavour, folder) for folder in options.layer_folders]
    scratch = [join(flavour, folder, *more) for folder in options.layer_folders[-1:] for more in ((), (_SCRATCH_DISK,))]
    return (*images, *scratch)


def locate(options: OptionsWCOW, facts: Facts) -> Layers:
    """Find the guest's files in the layers, of which the topmost that has a utility VM is taken.

    Raises:
        InvalidOptions: a rule of `options.rules.verify` is broken.
        NotFound: no layer has a utility VM.
    """
    verify(options, facts.build)
    flavour, scratch = facts.path_flavour, options.layer_folders[-1]
    found = next((folder for folder in options.layer_folders if image_folder(flavour, folder) in facts.files_present), None)
    if found is None:
        raise NotFound("failed to locate utility VM folder from layer folders: utility VM folder could not be found in layers")
    there = join(flavour, scratch) in facts.files_present
    return Layers(found, scratch, () if there else (MakeFolder(scratch, "failed to create utility VM scratch folder: "),))


def plan_wcow(options: OptionsWCOW, layers: Layers, facts: Facts, *, vm_id: str, warn: Warn) -> WcowPlan:
    """Plan a utility VM with a Windows guest whose files `locate` has found.

    `vm_id` is the final id, whatever the options say. `warn` gets each adjusted number, also when the plan fails after it.

    Raises:
        HostError, Unsupported: as `plan.topology.plan_topology`.
        InvalidOptions: as `plan.clone.clone`.
    """
    flavour, image = facts.path_flavour, image_folder(facts.path_flavour, layers.uvm_folder)
    topology = _topology(options, facts, vm_id, warn)
    own = VirtualSmbShare(
        name="os",
        path=join(flavour, image, "Files"),
        options=structs.replace(default_options(no_directmap=options.fully_physically_backed), take_backup_privilege=True),
    )
    template = options.template_config if options.is_clone else None
    if template is not None:
        cloned = clone(template, layers.scratch_folder, flavour, facts.unique)
        effects, slots, shares, entries = cloned.effects, cloned.slots, (own, *cloned.shares), cloned.entries
    else:
        effects, slots = _scratch(image, layers, facts)
        shares, entries = (own,), ()
    machine = VirtualMachine(
        stop_on_reset=True,
        chipset=Chipset(uefi=Uefi(boot_this=UefiBootEntry(device_type="VmbFs", device_path="\\EFI\\Microsoft\\Boot\\bootmgfw.efi"))),
        compute_topology=topology,
        devices=_devices(slots, [_savable(share) for share in shares] if options.is_template else list(shares)),
        restore_state=RestoreState(template_system_id=template.uvm_id) if template else None,
        registry_changes=_registry(options),
        storage_qos=storage_qos(options),
        guest_connection=None if options.external_guest_connection else GuestConnection(),
    )
    assert topology.memory is not None  # noqa: S101 (made above)
    assert topology.processor is not None  # noqa: S101
    return WcowPlan(
        document=whole(options, machine),
        effects=effects,
        processor_count=topology.processor.count,
        memory_size_in_mb=topology.memory.size_in_mb,
        listen_ports=(WINDOWS_BRIDGE_PORT,) if options.external_guest_connection else (),
        slots=slots,
        shares=entries,
        namespaces=(CLONE_NAMESPACE,) if template else (),
        template_id=template.uvm_id if template else "",
    )


def _topology(options: OptionsWCOW, facts: Facts, vm_id: str, warn: Warn) -> Topology:
    try:
        memory, processor = plan_topology(options, facts, vm_id=vm_id, warn=warn)
    except (HostError, Unsupported) as error:
        raise type(error)(f"error in preparing config doc: {error.message}", hint=error.hint) from error
    return Topology(memory=memory, processor=processor)


def _scratch(image: str, layers: Layers, facts: Facts) -> tuple[tuple[Effect, ...], tuple[ScsiSlot, ...]]:
    """Return how the guest's own disk comes to be, and its place: it is copied once, and kept for the next VM on these layers."""
    path = join(facts.path_flavour, layers.scratch_folder, _SCRATCH_DISK)
    effect: Effect = GrantAccess(path, "failed to grant vm access to scratch: ")
    if path not in facts.files_present:
        effect = CopyDisk(join(facts.path_flavour, image, _TEMPLATE_DISK), path, "failed to create scratch: ")
    return (effect,), (ScsiSlot(0, 0, path, uvm_path="", attachment_type="VirtualDisk", read_only=False),)


def _devices(slots: Sequence[ScsiSlot], shares: list[VirtualSmbShare]) -> Devices:
    controllers: dict[str, dict[str, Attachment]] = {}
    for slot in slots:
        disk = Attachment(type=slot.attachment_type, path=slot.host_path, read_only=slot.read_only)
        controllers.setdefault(str(slot.controller), {})[str(slot.lun)] = disk
    return Devices(
        scsi={number: Scsi(attachments=disks) for number, disks in controllers.items()},
        hv_socket=hv_socket(),
        virtual_smb=VirtualSmb(shares=shares, direct_file_mapping_in_mb=DIRECT_MAPPING_IN_MB),
    )


def _savable(share: VirtualSmbShare) -> VirtualSmbShare:
    assert share.options is not None  # noqa: S101 (every share of ours has some)
    return structs.replace(share, options=saveable(share.options))


def _registry(options: OptionsWCOW) -> RegistryChanges:
    if options.disable_compartment_namespace:
        return RegistryChanges()
    key = RegistryKey(hive="System", name="CurrentControlSet\\Services\\gns")
    return RegistryChanges(add_values=[RegistryValue(key=key, name="EnableCompartmentNamespace", type="DWord", dword_value=1)])
