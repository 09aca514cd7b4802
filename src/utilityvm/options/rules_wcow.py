"""Rules of a VM with a Windows guest: the original's, in its order but for the template that it looked at before it asked for one; ours."""

from collections import Counter
from typing import Final

from utilityvm.options.resources import ScsiMount, VsmbShare
from utilityvm.options.rule import DEFERRED_COMMIT, SHARED_BOUNDS, Rule
from utilityvm.options.rules_clone import CLONE, IDLE_TEMPLATE, NEEDS_TEMPLATE, same_as_template
from utilityvm.options.wcow import OptionsWCOW

MAX_SCSI_CONTROLLERS: Final = 4
MAX_SCSI_LUNS: Final = 64

VERIFY_WCOW: tuple[Rule[OptionsWCOW], ...] = (
    DEFERRED_COMMIT,
    Rule("layer_folders", "at least 2 LayerFolders must be supplied", lambda options, _: len(options.layer_folders) < 2),
    NEEDS_TEMPLATE,
    same_as_template(OptionsWCOW),
    *CLONE,
)


def has_slot(disk: ScsiMount) -> bool:
    """Whether the place of a disk exists."""
    return 0 <= disk.controller < MAX_SCSI_CONTROLLERS and 0 <= disk.lun < MAX_SCSI_LUNS


def _disks(options: OptionsWCOW) -> list[ScsiMount]:
    resources = options.template_config.resources if options.template_config else ()
    return [resource for resource in resources if isinstance(resource, ScsiMount)]


def _share_names(options: OptionsWCOW) -> list[str]:
    resources = options.template_config.resources if options.template_config else ()
    return ["os", *(resource.name for resource in resources if isinstance(resource, VsmbShare))]


BOUNDS_WCOW: tuple[Rule[OptionsWCOW], ...] = (
    *SHARED_BOUNDS,
    Rule("layer_folders", "layer_folders must not have an empty path", lambda options, _: "" in options.layer_folders),
    IDLE_TEMPLATE,
    Rule(
        "template_config",
        f"template_config.resources: SCSI controllers are 0 to {MAX_SCSI_CONTROLLERS - 1}, LUNs 0 to {MAX_SCSI_LUNS - 1}",
        lambda options, _: not all(map(has_slot, _disks(options))),
    ),
    Rule(
        "template_config",
        "template_config.resources: two disks at one place of a SCSI controller",
        lambda options, _: any(count > 1 for count in Counter((disk.controller, disk.lun) for disk in _disks(options)).values()),
    ),
    Rule(
        "template_config",
        "template_config.resources: attachment_type must be VirtualDisk or PassThru",
        lambda options, _: any(disk.attachment_type not in {"", "VirtualDisk", "PassThru"} for disk in _disks(options)),
    ),
    Rule(
        "template_config",
        "template_config.resources: two shares of one name; os is the guest's own",
        lambda options, _: any(count > 1 for count in Counter(_share_names(options)).values()),
    ),
)
