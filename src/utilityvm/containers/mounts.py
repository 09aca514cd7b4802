"""Mounts of a container in a Linux guest: what of them the host must give to the guest first, and where the guest then has it.

Semantics: the original's for ``bind``, ``physical-disk`` and ``virtual-disk``, with its texts; ``volume`` and ``scratch`` are ours. Others
are the guest's.
"""

import re
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec
from msgspec.structs import replace

from utilityvm.containers.releases import Releases
from utilityvm.containers.scratch import SCRATCH_SIZE, check_size
from utilityvm.containers.volumes import Volumes
from utilityvm.devices.plan9 import SharedFolder
from utilityvm.devices.ports import Owner
from utilityvm.devices.scsi import DiskAccess
from utilityvm.devices.share import share
from utilityvm.devices.tables import Tables
from utilityvm.kit.errors import InvalidOptions, Problem, UtilityVMError
from utilityvm.wire.oci import Mount

VOLUME: Final = "volume"
"""The type of a mount whose source is the name of a volume."""

SCRATCH: Final = "scratch"
"""The type of a mount whose source is a name among the folders that a container has on its scratch disk beside its root."""

NOCOPY: Final = "nocopy"
"""Option of a volume that is not filled with what the container's root has in its place while it is empty."""

_COPY: Final = "copy"  # by which our agent is told to fill it

_HOSTS: Final = {"bind", "physical-disk", "virtual-disk", VOLUME, SCRATCH}
"""Types of mounts whose source is on the host."""

_PATHS: Final = {"bind", "physical-disk", "virtual-disk"}
"""Types of mounts whose source is a path of the host."""

_OF_THE_GUEST: Final = ("sandbox://", "sandbox-tmp://", "hugepages://", "uvm://")
"""Beginnings of sources that the guest finds."""

_SIZE: Final = re.compile(r"size=(\d{1,19})([kmgtKMGT]?)")
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class Mounts(msgspec.Struct, frozen=True):
    """What mounts are made of: the VM, its tables of devices, and its volumes."""

    owner: Owner
    tables: Tables
    volumes: Volumes

    async def place(self, mounts: Sequence[Mount], taken: Releases, scratch_path: str, *, ours: bool) -> list[Mount]:
        """Give the guest what `mounts`, which are checked, need of the host, and return them with the sources that it then has.

        `scratch_path` is the container's folder on its scratch disk in the guest, ``""`` without one. `ours` says whether the guest's
        agent is this project's, which fills what is empty.

        Raises:
            UtilityVMError: as `devices.share.share`, `Scsi.add` and `Volumes.use`, with the mount that it was about.
        """
        placed = []
        for mount in mounts:
            try:
                placed.append(await self._place(mount, taken, scratch_path, ours=ours))
            except UtilityVMError as error:
                error.during(f"mount {mount.destination}")
                raise
        return placed

    async def _place(self, mount: Mount, taken: Releases, scratch_path: str, *, ours: bool) -> Mount:
        if not _is_of_host(mount):
            return mount
        read_only = is_read_only(mount)
        match mount.type:
            case "bind":
                return await self._share(mount, taken, read_only=read_only)
            case "volume":
                path = await self.volumes.use(mount.source, read_only=read_only, size=volume_size(mount))
                taken.push(f"volume {mount.source}", partial(self.volumes.drop, mount.source))
                options = [option for option in mount.options if not option.startswith("size=") and option != NOCOPY]
                if ours and not read_only and NOCOPY not in mount.options:
                    options.append(_COPY)
                return _bound(replace(mount, type="bind", source=path, options=options))
            case "scratch":
                return _of_scratch(mount, scratch_path, ours=ours)
        path = self.tables.layers.mount_point()
        if mount.type == "physical-disk":
            await self.tables.scsi.add_physical_disk(mount.source, path, read_only=read_only)
        else:
            await self.tables.scsi.add(mount.source, path, read_only=read_only, access=DiskAccess.INDIVIDUAL)
        taken.push(f"disk {mount.source}", partial(self.tables.scsi.remove, mount.source))
        return _bound(replace(mount, type="none", source=path))

    async def _share(self, mount: Mount, taken: Releases, *, read_only: bool) -> Mount:
        """Share a folder; or a file, alone in a folder of the guest."""
        guest_path = self.tables.layers.mount_point()
        shared = await share(self.owner, self.tables.plan9, self.tables.vsmb, mount.source, guest_path, read_only=read_only)
        if not isinstance(shared, SharedFolder):  # as a Linux guest's always are
            raise TypeError(f"{shared} is no 9p share")
        taken.push(f"share of {mount.source}", partial(self.tables.plan9.remove, shared))
        if shared.allowed_names is not None:
            guest_path = f"{guest_path}/{shared.allowed_names[0]}"
        return _bound(replace(mount, source=guest_path))


def check_mounts(mounts: Sequence[Mount]) -> None:
    """Refuse mounts that make no sense.

    Raises:
        InvalidOptions: `problems` has all of them.
    """
    problems = []
    for place, mount in enumerate(mounts):
        if mount.type in _HOSTS and not (mount.source and mount.destination):
            shown = f"{{Destination:{mount.destination} Type:{mount.type} Source:{mount.source} Options:[{' '.join(mount.options)}]}}"
            said = f"invalid OCI spec - a mount must have both source and a destination: {shown}"
            problems.append(Problem(f"$.mounts[{place}]", "missing", said))
        elif mount.type in _PATHS and not _is_absolute(mount.source):
            said = f"mount {mount.destination}: the source {mount.source[:200]!r} is not an absolute path of this host"
            problems.append(Problem(f"$.mounts[{place}].source", "path", said))
        elif mount.type == VOLUME:
            volume_size(mount)
    if problems:
        raise InvalidOptions(problems[0].message, problems=problems)


def of_host(mounts: Sequence[Mount]) -> list[str]:
    """Return the names of what mounts have of the host, but for folders of the container's own scratch disk."""
    return [f"the {mount.type} {mount.source}" for mount in mounts if _is_of_host(mount) and mount.type != "scratch"]


def is_read_only(mount: Mount) -> bool:
    """Whether one of its options says so, whatever the case of its letters."""
    return any(option.lower() == "ro" for option in mount.options)


def volume_size(mount: Mount) -> int:
    """Return the bytes of a volume if it is to be made: its option ``size=10g``, as tmpfs has it, or as many as a scratch disk has.

    Raises:
        InvalidOptions: no disk can have that size.
    """
    said = next((option for option in mount.options if option.startswith("size=")), None)
    if said is None:
        return SCRATCH_SIZE
    found = _SIZE.fullmatch(said)
    if found is None:
        message = f"mount {mount.destination}: {said[:100]!r} is no size: a number of bytes, with k, m, g or t for its unit"
        raise InvalidOptions(message, problems=[Problem("$.mounts", "size", message)])
    return check_size(int(found[1]) * _UNITS[found[2].lower()], f"the size of volume {mount.source}")


def _is_absolute(source: str) -> bool:
    """Whether a source has its place by itself: a path of either sort of host, or of the guest's."""
    return source.startswith(("/", "\\\\", *_OF_THE_GUEST)) or source[1:3] in {":\\", ":/"}


def _of_scratch(mount: Mount, scratch_path: str, *, ours: bool) -> Mount:
    if not scratch_path:
        raise InvalidOptions("it is a folder of the scratch disk, and the container has none", hint="give scratch_size_in_bytes")
    if not ours:  # who would not make the folder
        return replace(mount, type="tmpfs", source="tmpfs", options=["nosuid", "nodev", "tmpcopyup"])
    return replace(mount, type="bind", source=f"{scratch_path}/volumes/{mount.source}", options=["rbind", *mount.options, _COPY])


def _is_of_host(mount: Mount) -> bool:
    return mount.type in _HOSTS and not mount.source.startswith(_OF_THE_GUEST)


def _bound(mount: Mount) -> Mount:
    """Return a mount with the word that makes it a bind mount: runtimes take it from the options."""
    return mount if {"bind", "rbind"} & set(mount.options) else replace(mount, options=["rbind", *mount.options])
