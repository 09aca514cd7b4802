"""What this host says of its PCI devices, read where its kernel tells it."""

import os
from contextlib import suppress
from pathlib import Path

from utilityvm.compute.qemu.assign import Function, Node, OnHost


def look_at(address: str, root: Path = Path("/")) -> OnHost:
    """Look at the device at a PCI address, in the files below `root`. What cannot be read is not there."""
    devices, groups = root / "sys/bus/pci/devices", root / "sys/kernel/iommu_groups"
    iommu = any(_names(groups))
    container = _node(root, "/dev/vfio/vfio")
    function = _function(devices / address)
    if function is None:
        return OnHost(iommu, container=container)
    group = _link(devices / address / "iommu_group")
    others = [_function(devices / other) for other in _names(groups / group / "devices") if other != address] if group else []
    node = _node(root, f"/dev/vfio/{group}") if group else None
    return OnHost(iommu, function, group, tuple(other for other in others if other is not None), container, node)


def _function(folder: Path) -> Function | None:
    try:
        kind = int((folder / "class").read_text(), 16) >> 8
    except (OSError, ValueError):
        return None
    return Function(folder.name, _link(folder / "driver"), kind)


def _node(root: Path, path: str) -> Node | None:
    file = root / path.lstrip("/")
    try:
        about = file.stat()
    except OSError:
        return None
    return Node(path, about.st_mode, about.st_gid, os.access(file, os.R_OK | os.W_OK))


def _link(path: Path) -> str:
    """Return the last name of where a link leads, ``""`` when there is none."""
    with suppress(OSError):
        return path.readlink().name
    return ""


def _names(folder: Path) -> list[str]:
    with suppress(OSError):
        return sorted(entry.name for entry in folder.iterdir())
    return []
