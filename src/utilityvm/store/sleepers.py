"""VMs that sleep: a file each, which is whole or not there.

It begins with the guest's memory, with holes where there is none; then come the state of its devices, what is on its disks, what it is, and
a trailer that says where that is. Who writes one has no name for it until it is whole, so that nothing is left by one who is killed. Who
goes on from it holds a lock on it: a VM is there once.
"""

import errno
import hashlib
import os
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self, final

import msgspec

from utilityvm.kit.errors import Corrupt, Exists, HostError, NotFound, StateError, Unsupported, UtilityVMError
from utilityvm.kit.files import extents, filled, pieces, write_all
from utilityvm.kit.text import printable
from utilityvm.store.nameless import give_name
from utilityvm.store.templates import MAX_MANIFEST, Manifest, check_size, manifest_of

if sys.platform != "win32":  # where no VM of ours sleeps
    import fcntl

_TRAILER: Final = struct.Struct("<16sQQ")
_MAGIC: Final = b"utilityvm sleeps"
_BLOCK: Final = 4096

_NO_SLEEPER: Final = "give it the whole file that `save` has written; an exported template is imported (`import_template`)"
_DAMAGED: Final = "take another copy of the file: nobody can go on from one that has changed"
_OTHER_VERSION: Final = "restore it with the version of this package that has saved it"


class Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where in the file something lies: so many bytes from so many on."""

    at: int
    length: int


class _What(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a sleeping VM is; the disks are those that its guest writes to, by the names in the records of its devices."""

    vm: msgspec.Raw
    state: Part
    disks: dict[str, Part]


@final
class Bed:
    """A file without a name in which a VM is being saved; `fd` is open for writing, where the state of its devices is to begin.

    `keep` gives it its name; `close` leaves nothing of it otherwise.
    """

    def __init__(self, path: Path, memory_bytes: int) -> None:
        try:
            self._path, self._memory_bytes = path.absolute(), memory_bytes
        except FileNotFoundError as error:
            raise HostError(f"{path}: the folder that we are in is no more", hint="give an absolute path") from error
        if path.exists():
            raise _exists(path)
        try:
            self.fd = os.open(path.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            hint = "take a folder of another file system" if error.errno in {errno.EOPNOTSUPP, errno.EISDIR} else ""
            raise HostError(f"{path}: no file can be made there: {error.strerror}", hint=hint) from error
        try:
            os.ftruncate(self.fd, memory_bytes)
            os.lseek(self.fd, memory_bytes, os.SEEK_SET)
        except OSError as error:
            self.close()
            raise HostError(f"{path}: a file of {memory_bytes} bytes cannot be made: {error.strerror}") from error

    def keep(self, manifest: Manifest, memory: int, disks: Mapping[str, int]) -> None:
        """Copy the open `memory` (-1: it is in the state) and `disks` into it, and give it its name; all of it is on the disk then.

        Raises:
            Exists: there is something of this name meanwhile.
            Unsupported: what is known of its VM is more than can be read again.
            HostError: the disk is full, or fails.
        """
        try:
            state = Part(self._memory_bytes, os.fstat(self.fd).st_size - self._memory_bytes)
            parts, end = _laid_out({name: os.fstat(fd).st_size for name, fd in disks.items()}, state.at + state.length)
            whole = msgspec.structs.replace(manifest, state_sha256=_digest(self.fd, state))
            data = msgspec.json.encode(_What(vm=msgspec.Raw(msgspec.json.encode(whole)), state=state, disks=parts))
            check_size(data, manifest.id)
            if memory >= 0:
                _copy(memory, Part(0, self._memory_bytes), self.fd, 0)
            for name, part in parts.items():
                _copy(disks[name], Part(0, part.length), self.fd, part.at)
            write_all(self.fd, data + _TRAILER.pack(_MAGIC, end, len(data)), end)
            os.fsync(self.fd)
            give_name(self.fd, self._path)
        except FileExistsError as error:
            raise _exists(self._path) from error
        except OSError as error:
            raise HostError(f"{self._path}: cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Let go of it. A second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@final
class Sleeper:
    """A saved VM: what `manifest` says, with its memory at the beginning of the open file `fd` and the state of its devices from
    `state_at` on, and `disks`. It is locked until every copy of the descriptor is closed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFound(f"{path}: there is no such file") from error
        except OSError as error:
            raise HostError(f"{path}: cannot be read: {error.strerror}") from error
        try:
            self._lock()
            self.manifest, what = self._read()
            self.state_at, self.disks = what.state.at, what.disks
        except OSError as error:
            self.close()
            raise HostError(f"{path}: cannot be read: {error.strerror}") from error
        except BaseException:
            self.close()
            raise

    def copy_disk(self, name: str, target: int) -> None:
        """Copy a disk to an empty file.

        Raises:
            OSError: it cannot be read or written.
        """
        os.ftruncate(target, self.disks[name].length)
        _copy(self.fd, self.disks[name], target, 0)

    def close(self) -> None:
        """Let go of it. A second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _lock(self) -> None:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateError(f"{self.path}", "its VM is there", "be restored") from error

    def _read(self) -> tuple[Manifest, _What]:
        size = os.fstat(self.fd).st_size
        trailer = os.pread(self.fd, _TRAILER.size, max(0, size - _TRAILER.size))
        magic, at, length = _TRAILER.unpack(trailer) if len(trailer) == _TRAILER.size else (b"", 0, 0)
        if magic != _MAGIC:
            raise Corrupt(f"{self.path}: is no saved VM, or only the beginning of one", hint=_NO_SLEEPER)
        if length > MAX_MANIFEST or at + length + _TRAILER.size != size:
            raise Corrupt(f"{self.path}: is not as it was written: what it is does not lie where it should", hint=_DAMAGED)
        try:
            what = msgspec.json.decode(os.pread(self.fd, length, at), type=_What)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Corrupt(f"{self.path}: is not as it was written: {printable(str(error), 256)}", hint=_DAMAGED) from error
        try:
            manifest = manifest_of(bytes(what.vm), f"{self.path}")
        except UtilityVMError as error:
            error.hint = _OTHER_VERSION if isinstance(error, Unsupported) else _DAMAGED
            raise
        before, inside = manifest.machine.memory_bytes, (what.state, *what.disks.values())
        if what.state.at != before or any(part.length < 0 or not before <= part.at <= at - part.length for part in inside):
            raise Corrupt(f"{self.path}: is not as it was written: its parts do not lie where they should", hint=_DAMAGED)
        if _digest(self.fd, what.state) != manifest.state_sha256:
            raise Corrupt(f"{self.path}: the state of its devices is not as it was written", hint=_DAMAGED)
        return manifest, what


def _laid_out(lengths: Mapping[str, int], at: int) -> tuple[dict[str, Part], int]:
    """Return where things of these lengths lie one after the other from `at` on, each at the beginning of a block, and where that ends."""
    parts = dict[str, Part]()
    for name, length in lengths.items():
        parts[name] = Part(-(-at // _BLOCK) * _BLOCK, length)
        at = parts[name].at + length
    return parts, at


def _copy(source: int, part: Part, target: int, to: int) -> None:
    """Copy a part of an open file to another's holes from `to` on; zeros stay holes."""
    for offset, length in extents(source, part.at, part.at + part.length):
        for at, piece in pieces(source, offset, length):
            for begin, end in filled(piece):
                write_all(target, piece[begin:end], to + at - part.at + begin)


def _exists(path: Path) -> Exists:
    return Exists(f"{path}: there is something of this name", hint="take another, or remove it")


def _digest(fd: int, part: Part) -> str:
    found = hashlib.sha256()
    for _, piece in pieces(fd, part.at, part.length):
        found.update(piece)
    return found.hexdigest()
