"""What is planned when `run.py` measures planning: a Linux guest, a Windows guest, and a clone of one with disks and shared folders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from utilityvm.options.lcow import OptionsLCOW
from utilityvm.options.paths import PathFlavour
from utilityvm.options.resources import ScsiMount, VsmbOption, VsmbShare
from utilityvm.options.wcow import OptionsWCOW, TemplateConfigWCOW
from utilityvm.plan.facts import Counted, Facts, Platform
from utilityvm.plan.lcow import boot_file_paths, plan_lcow
from utilityvm.plan.wcow import locate, plan_wcow
from utilityvm.schema import json

if TYPE_CHECKING:
    from collections.abc import Callable

    from utilityvm.plan.normalize import Adjusted

LAYERS = ("C:\\layers\\top", "C:\\layers\\base", "C:\\scratch")
DISKS = 8
SHARES = 8


def lcow() -> Callable[[], str]:
    options = OptionsLCOW(id="vm", boot_files_path="/var/lib/boot")
    paths = boot_file_paths(options, Platform.QEMU, PathFlavour.POSIX)
    facts = _facts(Platform.QEMU, PathFlavour.POSIX, paths.kernel, paths.root_fs)
    return lambda: json.encode(plan_lcow(options, facts, vm_id="vm", warn=_no_warning).document)


def wcow() -> Callable[[], str]:
    return _wcow(OptionsWCOW(id="vm", layer_folders=LAYERS))


def clone() -> Callable[[], str]:
    disks = [ScsiMount(host_path=f"C:\\disks\\{number}.vhdx", lun=number) for number in range(DISKS)]
    words = (VsmbOption.READ_ONLY, VsmbOption.SHARE_READ)
    shares = [VsmbShare(host_path=f"C:\\shared\\{number}", name=f"s{number}", options=words) for number in range(SHARES)]
    created = OptionsWCOW(id="template", layer_folders=LAYERS)
    template = TemplateConfigWCOW(uvm_id="template", resources=(*disks, *shares), create_options=created)
    return _wcow(OptionsWCOW(id="vm", layer_folders=LAYERS, is_clone=True, template_config=template))


def _wcow(options: OptionsWCOW) -> Callable[[], str]:
    facts = _facts(Platform.HYPERV, PathFlavour.WINDOWS, LAYERS[1] + "\\UtilityVM")
    return lambda: json.encode(plan_wcow(options, locate(options, facts), facts, vm_id="vm", warn=_no_warning).document)


def _facts(platform: Platform, flavour: PathFlavour, *files: str) -> Facts:
    return Facts(platform=platform, path_flavour=flavour, processors=Counted(logical_processors=8), files_present=frozenset(files))


def _no_warning(adjusted: Adjusted) -> None:
    raise AssertionError(adjusted.message)


PLANS = {"plan_lcow": lcow, "plan_wcow": wcow, "plan_clone": clone}
