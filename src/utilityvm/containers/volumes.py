"""Named volumes: ext4 disks that stay on the host from one container to the next, each in a file of its own.

A volume that may be written is one VM's at a time, which the kernel sees to: a lock on the file goes with its owner, however that ends.
"""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import final

import msgspec

from utilityvm.containers.scratch import VOLUME_FORMAT, fill
from utilityvm.devices.scsi import Scsi
from utilityvm.kit.errors import Exists, HostError, NotFound, Unsupported
from utilityvm.kit.ids import check_name
from utilityvm.store.layout import Layout
from utilityvm.store.nameless import DiskFile, give_name, nameless

if sys.platform != "win32":
    import fcntl


def volume_file(layout: Layout, name: str) -> Path:
    """Return the file of a volume.

    Raises:
        InvalidOptions: no volume can have this name.
    """
    check_name(name, f"{name!r:.200} cannot name a volume", "volume", "name")
    return layout.volumes / f"{name}.img"


async def make_volume(layout: Layout, name: str, size: int) -> None:
    """Make an empty volume of `size` bytes, unless there is one of this name. A killed or cancelled call leaves none, or a whole one.

    Raises:
        InvalidOptions: no volume can have this name.
        NotFound, HostError: as `scratch.fill`.
    """
    path = volume_file(layout, name)
    if path.exists():
        return
    file = nameless(layout.volumes)
    try:
        await fill(file, layout.disks, size, VOLUME_FORMAT)
        os.fsync(file.fd)
        give_name(file.fd, path)
    except FileExistsError:
        pass  # another has made it meanwhile
    except OSError as error:
        raise HostError(f"volume {name}: {path} cannot be made: {error.strerror}") from error
    finally:
        file.close()


class Volume(msgspec.Struct, frozen=True):
    """A volume: its `size` and what it has `taken` of the host's disk, in bytes, and whether a VM has it."""

    name: str
    size: int
    taken: int
    in_use: bool


def volumes(layout: Layout) -> list[Volume]:
    """Return all volumes, in the order of their names."""
    found = []
    for path in sorted(layout.volumes.glob("*.img")):
        try:
            about = path.stat()
        except FileNotFoundError:  # removed a moment ago
            continue
        found.append(Volume(path.stem, about.st_size, about.st_blocks * 512, _in_use(layout, path.stem)))
    return found


def _in_use(layout: Layout, name: str) -> bool:
    try:
        lock_volume(layout, name, read_only=False).close()
    except Exists:
        return True
    except (NotFound, HostError):  # gone, or not ours to open
        return False
    return False


def remove_volume(layout: Layout, name: str) -> None:
    """Remove a volume with all that is in it.

    Raises:
        NotFound: there is none of this name.
        Exists: a VM has it.
        InvalidOptions: no volume can have this name.
        HostError: it cannot be removed.
    """
    path = volume_file(layout, name)
    if not path.exists():
        raise NotFound(f"volume {name}: there is none", hint="uvm volume ls lists them")
    file = lock_volume(layout, name, read_only=False)
    try:
        path.unlink()
    except OSError as error:
        raise HostError(f"volume {name}: {path} cannot be removed: {error.strerror}") from error
    finally:
        file.close()


def lock_volume(layout: Layout, name: str, *, read_only: bool) -> DiskFile:
    """Open a volume, to be read by many or written by one.

    Raises:
        Exists: another VM has it.
        NotFound: it was removed meanwhile.
        HostError: it cannot be opened.
    """
    path = volume_file(layout, name)
    try:
        file = DiskFile(os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC))
    except OSError as error:
        raise HostError(f"volume {name}: {path} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(file.fd, (fcntl.LOCK_SH if read_only else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if error.errno != errno.EWOULDBLOCK:
            raise HostError(f"volume {name}: {path} cannot be locked: {error.strerror}") from error
        wish, use = ("to read", "may write it") if read_only else ("to write", "has it")
        message = f"volume {name}: cannot be had {wish}: another VM {use}"
        raise Exists(message, hint="a volume is written by one VM at a time; end that VM, or let both only read (ro)") from error
    if os.fstat(file.fd).st_nlink == 0:
        file.close()
        raise NotFound(f"volume {name}: was removed a moment ago")
    return file


class _Used(msgspec.Struct):
    file: DiskFile
    guest_path: str
    read_only: bool
    users: int = 1


@final
class Volumes:
    """The volumes that one VM has; `layout` says where they lie, `mount_point` makes a new path in the guest."""

    def __init__(self, scsi: Scsi, layout: Callable[[], Layout], mount_point: Callable[[], str], name: str) -> None:
        self._scsi, self._layout, self._mount_point, self._name = scsi, layout, mount_point, name
        self._used: dict[str, _Used] = {}

    async def use(self, name: str, *, read_only: bool, size: int) -> str:
        """Let the VM have a volume, which is made with `size` bytes when there is none; return where the guest has it mounted.

        Give it back by `drop` as often.

        Raises:
            Exists: another VM has it, or this VM has it in the other way, to read or to write.
            InvalidOptions: no volume can have this name.
            UtilityVMError: as `make_volume` and `Scsi.add`.
        """
        if sys.platform == "win32":
            raise Unsupported("volumes are for hosts of Linux: on Windows attach a disk of your own, as a mount of the type virtual-disk")
        if name not in self._used:
            await make_volume(self._layout(), name, size)
        used = self._used.get(name)
        if used is None:
            used = self._used[name] = _Used(lock_volume(self._layout(), name, read_only=read_only), self._mount_point(), read_only)
        elif used.read_only != read_only:
            has = "to read" if used.read_only else "to write"
            raise Exists(f"volume {name}: {self._name} has it {has}, and cannot have it in both ways")
        else:
            used.users += 1
        try:
            await self._scsi.add(used.file.path, used.guest_path, read_only=read_only)
        except BaseException:
            self._count_down(name, used)
            raise
        return used.guest_path

    async def drop(self, name: str) -> None:
        """Give a volume back. When that fails the same call may be made again.

        Raises:
            UtilityVMError: as `Scsi.remove`.
        """
        used = self._used[name]
        await self._scsi.remove(used.file.path)
        self._count_down(name, used)

    def abandon(self) -> None:
        """Unlock all of them: the VM is over."""
        for used in self._used.values():
            used.file.close()
        self._used.clear()

    @property
    def written(self) -> bool:
        """Whether there are some that the VM may write."""
        return any(not used.read_only for used in self._used.values())

    def _count_down(self, name: str, used: _Used) -> None:
        used.users -= 1
        if used.users == 0 and self._used.get(name) is used:
            del self._used[name]
            used.file.close()
