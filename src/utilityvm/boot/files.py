"""Boot files: the folder with the guest's kernel and initial RAM disk, and whether it is fit to boot from."""

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from utilityvm.boot import cpio, elf, kernel
from utilityvm.boot.manifest import FileRecord, Manifest, decode
from utilityvm.kit.errors import Corrupt, HostError, NotFound, Unsupported, UtilityVMError
from utilityvm.kit.files import digest
from utilityvm.store.layout import BUSYBOX_FILE

VMLINUX = "vmlinux"
KERNEL = "kernel"
INITRD = "initrd.img"
BUSYBOX = BUSYBOX_FILE
MANIFEST = "manifest.json"
ARCHITECTURE = "x86_64"

BUILD_HINT = "build the boot files: uvm boot-files build (without apt: --mirror URL, a mirror of Debian)"
"""What to do about boot files that are missing or broken."""


class BootFiles(msgspec.Struct, frozen=True):
    """A checked folder of boot files, and its manifest."""

    folder: Path
    manifest: Manifest

    @property
    def vmlinux(self) -> Path:
        """The kernel as an ELF file, for direct boot (PVH)."""
        return self.folder / VMLINUX

    @property
    def kernel(self) -> Path:
        """The same kernel as the distribution ships it (bzImage), for firmware."""
        return self.folder / KERNEL

    @property
    def initrd(self) -> Path:
        """The initial RAM disk, with the agent as its init."""
        return self.folder / INITRD


def load(folder: Path, *, digests: bool = False) -> BootFiles:
    """Check the boot files in `folder`: each is there, of the size that the manifest says, and of the right kind.

    Only the image `busybox` may be lacking, where the manifest says nothing of it.

    `digests` checks their whole content too, which reads all of it.

    Raises:
        NotFound: the folder or one of its files is missing.
        Corrupt: a file is truncated, changed, or not what its name says.
        Unsupported: a file is for another architecture, or from another version of ours.
        HostError: a file cannot be read.
    """
    try:
        manifest = decode(_read(folder / MANIFEST), str(folder / MANIFEST))
        if manifest.architecture != ARCHITECTURE:
            raise Unsupported(f"{folder}: these boot files are for {manifest.architecture}, only {ARCHITECTURE} is supported")
        for name, check in _CHECKS.items():
            record = manifest.files.get(name)
            if record is None and name == BUSYBOX:
                continue  # of a version that had none: VMs boot all the same
            if record is None:
                raise Corrupt(f"{folder / MANIFEST}: says nothing about {name}")
            _check_file(folder / name, record, check, digests=digests)
    except UtilityVMError as error:
        error.hint = error.hint or BUILD_HINT
        raise
    return BootFiles(folder, manifest)


def _check_initrd(head: bytes, what: str) -> None:
    if not head.startswith(cpio.MAGIC):
        raise Corrupt(f"{what}: not a cpio archive")


def _check_archive(head: bytes, what: str) -> None:
    if head[257:262] != b"ustar":
        raise Corrupt(f"{what}: not a tar archive")


_CHECKS: Mapping[str, Callable[[bytes, str], None]] = {
    VMLINUX: elf.check_machine,
    KERNEL: kernel.check_image,
    INITRD: _check_initrd,
    BUSYBOX: _check_archive,
}


def _check_file(path: Path, record: FileRecord, check: Callable[[bytes, str], None], *, digests: bool) -> None:
    check(_read(path, kernel.HEAD_SIZE), str(path))
    size = path.stat().st_size
    if size != record.size:
        raise Corrupt(f"{path}: has {size} bytes, the manifest says {record.size}")
    if digests and digest(path) != record.sha256:
        raise Corrupt(f"{path}: its content is not what the manifest says (SHA-256)")


def _read(path: Path, size: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except FileNotFoundError as error:
        raise NotFound(f"{path}: no such boot file") from error
    except OSError as error:
        raise HostError(f"{path}: cannot be read: {error.strerror}") from error
