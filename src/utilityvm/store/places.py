"""Records of what is touched at interfaces of this host in the place of which VMs are: a file each, written before anything is touched.

The owner of a VM holds a lock on its record, which the kernel drops with its holder. A record that nobody holds tells where something may
be left. What is recorded ends with the host's boot, and so the records need not outlive it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self, final

import msgspec

from utilityvm.kit.errors import Exists, HostError
from utilityvm.kit.files import FileLock, make_folder, write_all

MAX_RECORD: Final = 1 << 14
"""Bytes of a record."""

_TRIES: Final = 1000  # against somebody who clears, and holds a lock for as long as a tool of the kernel's takes


class Place(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a VM's `tap` is: in the network namespace that was at `path` and is known by `device` and `inode`; in the place of `interface`,
    or with `bridge` a port of that.
    """

    path: str
    device: int
    inode: int
    tap: str
    interface: str = ""
    bridge: str = ""

    @property
    def name(self) -> str:
        """The name of its record: a place is one VM's."""
        return f"{self.device}-{self.inode}-{self.interface or self.tap}"

    def __str__(self) -> str:
        """Words for people."""
        return f"{self.interface} of {self.path}" if self.interface else f"the bridge {self.bridge}"


@final
class Held:
    """A place that is ours until `forget`."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        self._path, self._lock = path, lock

    @classmethod
    def take(cls, folder: Path, place: Place) -> Self:
        """Take a place, and write it down.

        Raises:
            Exists: another VM has it.
            HostError: it cannot be written down.
        """
        path = folder / place.name
        try:
            make_folder(folder, private=True)
            lock = _hold(path, make=True)
            if lock is None:
                raise Exists(f"the place of the interface {place.interface} is taken by {_taker(path)}", hint="a namespace is one VM's")
            os.ftruncate(lock.descriptor, 0)
            write_all(lock.descriptor, msgspec.json.encode(place), 0)
        except OSError as error:
            raise HostError(f"{path}: cannot be written: {error.strerror}") from error
        return cls(path, lock)

    def forget(self) -> None:
        """Remove the record: nothing is left there."""
        self._path.unlink(missing_ok=True)
        self._lock.release()

    def keep(self) -> None:
        """Let the record go without removing it: something may be left."""
        self._lock.release()


@contextmanager
def leftovers(folder: Path) -> Iterator[list[tuple[Place, Held]]]:
    """Give the places whose owners are gone, held meanwhile; of what is not said to be forgotten the record stays.

    Raises:
        HostError: the folder cannot be read.
    """
    found = list[tuple[Place, Held]]()
    try:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if (lock := _hold(path, make=False)) is None:
                continue
            held = Held(path, lock)
            try:
                found.append((msgspec.json.decode(os.pread(lock.descriptor, MAX_RECORD, 0), type=Place), held))
            except msgspec.MsgspecError:  # its owner was killed before it had touched anything
                held.forget()
        yield found
    except OSError as error:
        raise HostError(f"{folder}: {error.strerror}") from error
    finally:
        for _, held in found:
            held.keep()


def _hold(path: Path, *, make: bool) -> FileLock | None:
    """Lock the file that has this name when the lock is there; None: somebody else has it, or it is gone."""
    for _ in range(_TRIES):
        lock = FileLock(path, make=make)
        try:
            if not lock.acquire(wait=False):
                return None
            if os.path.samestat(os.fstat(lock.descriptor), path.stat()):
                return lock
        except FileNotFoundError:
            if not make:
                return None
        lock.release()
    return None


def _taker(path: Path) -> str:
    try:
        return msgspec.json.decode(path.read_bytes()[:MAX_RECORD], type=Place).tap
    except (OSError, msgspec.MsgspecError):
        return "another VM"
