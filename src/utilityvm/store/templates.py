"""Templates on disk: a folder each, which is whole or not there.

``memory`` is the guest's, with holes where it has never been; ``state`` is its devices'; ``manifest.json`` says what they go with, and
names the files with what is on the guest's disks.
Whoever makes one holds a lock on a folder with another name until it is whole; `sweep` removes such folders that nobody holds.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Self, final

import msgspec

from utilityvm.kit.errors import Corrupt, Exists, HostError, NotFound, Unsupported, UtilityVMError
from utilityvm.kit.files import FileLock, make_folder, sync_folder
from utilityvm.kit.text import printable
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.store.devices import Devices, FileRecord

VERSION: Final = 2
"""Of the manifest: a template of another version is not read."""

MEMORY: Final = "memory"
STATE: Final = "state"
MANIFEST: Final = "manifest.json"

_CONTENT: Final = re.compile(r"scsi\d{1,2}-\d{1,2}-\d{1,4}\.(raw|vhd|qcow2)")
"""What the file of a disk can be called: controller, place, which of the disk's files, and its format."""

MAX_MANIFEST: Final = 1 << 20
"""Bytes of a manifest."""

_UNFINISHED: Final = "."  # no id of a VM begins with it
_READ_ONLY: Final = 0o444  # QEMU, who may be another user, opens it by a descriptor of ours; the folder keeps others out


class MachineRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a machine must have to go on from the template: `qemu` of this version, accelerated so, on such a processor (``""``: any),
    with this `topology` in QEMU's words, booted from these `files`. `memory_in_state`: its memory is in the state of its devices, and not
    beside it.
    """

    qemu: str
    accel: str
    processor: str
    topology: tuple[str, ...]
    files: dict[str, FileRecord]
    memory_bytes: int
    memory_in_state: bool = False
    devices: Devices = Devices()


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a template is: of which VM, `created` when (seconds since 1970), of which `options`; `state_sha256` is of the file."""

    version: int = VERSION
    id: str
    created: float
    options: OptionsLCOW
    machine: MachineRecord
    state_sha256: str

    @property
    def contents(self) -> tuple[str, ...]:
        """The names of the files with what is on its disks."""
        return tuple(name for disk in self.machine.devices.disks for name in disk.content)


class _Version(msgspec.Struct):
    version: int


class Opened(msgspec.Struct, frozen=True):
    """A template that is read: descriptors of its files, each with a place of its own in it; those of its disks by their names."""

    manifest: Manifest
    memory: int
    state: int
    contents: Mapping[str, int]


@contextmanager
def opened(folder: Path, template_id: str) -> Iterator[Opened]:
    """Open a template among those in `folder`, which stays as it is for its reader also when it is removed.

    Raises:
        NotFound, Corrupt, Unsupported, HostError: as `read`.
    """
    with ExitStack() as held:
        try:
            place = _open(held, folder / template_id, os.O_DIRECTORY)
            manifest = _manifest(held, folder, template_id, place)
            memory, state, *contents = (_open(held, name, dir_fd=place) for name in (MEMORY, STATE, *manifest.contents))
        except OSError as error:
            raise _unreadable(folder, template_id, error) from error
        yield Opened(manifest, memory, state, dict(zip(manifest.contents, contents, strict=True)))


def read(folder: Path, template_id: str) -> Manifest:
    """Return the manifest of a template among those in `folder`.

    Raises:
        NotFound: there is no such template.
        Corrupt: it is not as we write it.
        Unsupported: another version of ours wrote it.
        HostError: it cannot be read.
    """
    with opened(folder, template_id) as template:
        return template.manifest


def _open(held: ExitStack, path: Path | str, flags: int = 0, *, dir_fd: int | None = None) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags, dir_fd=dir_fd)
    held.callback(os.close, fd)
    return fd


def _manifest(held: ExitStack, folder: Path, template_id: str, place: int) -> Manifest:
    name, hint = f"template {template_id}", _again(folder, template_id)
    data = os.pread(_open(held, MANIFEST, dir_fd=place), MAX_MANIFEST, 0)
    try:
        manifest = manifest_of(data, name)
    except UtilityVMError as error:
        error.hint = hint
        raise
    if manifest.id != template_id:
        raise Corrupt(f"{name}: its manifest is that of {manifest.id}", hint=hint)
    return manifest


def check_size(data: bytes, vm_id: str) -> None:
    """Refuse to write `data`, which is what is known of a VM, if it could not be read again.

    Raises:
        Unsupported: it is larger than `MAX_MANIFEST`.
    """
    if len(data) > MAX_MANIFEST:
        said = f"vm {vm_id}: cannot be saved: what is known of it takes {len(data):,} bytes, and there may be {MAX_MANIFEST:,}"
        raise Unsupported(said, hint="give its containers' processes shorter environments, or delete some of them")


def manifest_of(data: bytes, name: str) -> Manifest:
    """Read a manifest; `name` is whose it is, for errors.

    Raises:
        Corrupt: it is not as we write it.
        Unsupported: another version of ours wrote it.
    """
    try:
        if (found := msgspec.json.decode(data, type=_Version).version) != VERSION:
            raise Unsupported(f"{name}: is of version {found}, and this one knows version {VERSION}")
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"{name}: {MANIFEST}: {printable(str(error), 256)}") from error
    contents = manifest.contents
    if len(set(contents)) < len(contents) or not all(map(_CONTENT.fullmatch, contents)):
        raise Corrupt(f"{name}: {MANIFEST}: a disk's files cannot be called so: {printable(', '.join(contents), 256)}")
    return manifest


def _unreadable(folder: Path, template_id: str, error: OSError) -> UtilityVMError:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        return HostError(f"template {template_id}: cannot be read: {error.strerror}")
    if (folder / template_id).is_dir():
        return Corrupt(f"template {template_id}: has no {error.filename}", hint=_again(folder, template_id))
    return NotFound(f"template {template_id}: there is none in {folder}")


def _again(folder: Path, template_id: str) -> str:
    return f"make it again: rm -r {folder / template_id}"


def ids(folder: Path) -> tuple[str, ...]:
    """Return the ids of the templates in `folder`, sorted; of broken ones too."""
    try:
        return tuple(sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(_UNFINISHED) and entry.is_dir()))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise HostError(f"{folder}: cannot be read: {error.strerror}") from error


@final
class Draft:
    """A template that is being made: `memory` and `state` are open for writing, and so is what `content` makes. `keep` makes it whole;
    `discard` leaves nothing of it.
    """

    def __init__(self, folder: Path, template_id: str) -> None:
        self._folder, self._id = folder, template_id
        try:
            make_folder(folder, private=True)
            with FileLock(folder):  # nobody sweeps before it is ours
                refuse_existing(folder, template_id)
                self._path = Path(tempfile.mkdtemp(dir=folder, prefix=f"{_UNFINISHED}new-"))
                self._lock = FileLock(self._path)
                self._lock.acquire()
            self._files: list[int] = []
            self.memory, self.state = self._open(MEMORY), self._open(STATE)
        except OSError as error:
            raise HostError(f"template {template_id}: cannot be made in {folder}: {error.strerror}") from error

    def content(self, name: str) -> int:
        """Make a file for what is on a disk, which the manifest names so, and return a descriptor of ours.

        Raises:
            HostError: it cannot be made.
        """
        try:
            return self._open(name)
        except OSError as error:
            raise HostError(f"template {self._id}: {name} cannot be made: {error.strerror}") from error

    def keep(self, manifest: Manifest) -> None:
        """Give the template its name; all of it is on the disk then.

        Raises:
            Exists: there is one of this id meanwhile.
            Unsupported: what is known of its VM is more than can be read again.
            HostError: the disk is full, or fails.
        """
        data = msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"
        check_size(data, manifest.id)
        try:
            for fd in self._files:
                os.fchmod(fd, _READ_ONLY)
                os.fsync(fd)
            with (self._path / MANIFEST).open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(self._path)
            with FileLock(self._folder):
                refuse_existing(self._folder, self._id)
                self._path.rename(self._folder / self._id)
            sync_folder(self._folder)
        except OSError as error:
            raise HostError(f"template {self._id}: cannot be written: {error.strerror}") from error
        self._close()

    def discard(self) -> None:
        """Remove all of it; nothing happens when it was kept."""
        if self._lock.descriptor >= 0:
            shutil.rmtree(self._path, ignore_errors=True)
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def _open(self, name: str) -> int:
        fd = os.open(self._path / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._files.append(fd)
        return fd

    def _close(self) -> None:
        while self._files:
            os.close(self._files.pop())
        self._lock.release()


def refuse_existing(folder: Path, template_id: str) -> None:
    """Refuse the id of a template that is there.

    Raises:
        Exists: there is one.
    """
    if (folder / template_id).exists():
        raise Exists(f"template {template_id}: there is one in {folder}", hint="give the VM another id, or remove the template")


def remove(folder: Path, template_id: str) -> None:
    """Remove a template; who has opened it goes on with it.

    Raises:
        NotFound: there is none.
        HostError: it cannot be removed.
    """
    try:
        with (
            FileLock(folder, make=False),
            tempfile.TemporaryDirectory(dir=folder, prefix=f"{_UNFINISHED}old-", ignore_cleanup_errors=True) as going,
        ):
            (folder / template_id).rename(Path(going, "template"))
    except FileNotFoundError as error:
        raise NotFound(f"template {template_id}: there is none in {folder}") from error
    except OSError as error:
        raise HostError(f"template {template_id}: cannot be removed: {error.strerror}") from error


def sweep(folder: Path) -> int:
    """Remove what nobody goes on making, and return how many bytes of the disk that was."""
    if not folder.is_dir():
        return 0
    with FileLock(folder):
        return sum(_sweep(path) for path in folder.iterdir() if path.name.startswith(_UNFINISHED))


def size(folder: Path) -> int:
    """Return how many bytes of the disk a folder's files take."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))


def _sweep(path: Path) -> int:
    lock = FileLock(path)
    if not lock.acquire(wait=False):
        return 0
    with lock:
        freed = size(path)
        shutil.rmtree(path)
        return freed
