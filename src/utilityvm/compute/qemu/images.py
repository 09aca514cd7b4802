"""Disk images: their format, and what in them QEMU must not be led to by whoever wrote them.

The name says the format and never the content: the guest writes the content of a raw disk, and one that looked like an image with a
backing file would be opened as such the next time.
"""

import os
import stat
import struct
from collections.abc import Callable
from enum import StrEnum
from pathlib import PurePath
from typing import Final

import msgspec

from utilityvm.kit.errors import HostError, InvalidOptions, NotFound, Unsupported

SECTOR: Final = 512


class Format(StrEnum):
    """How QEMU reads an image; its word for it."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VHD = "vpc"
    VHDX = "vhdx"


_BY_NAME: Final = {".qcow2": Format.QCOW2, ".vhd": Format.VHD, ".vhdx": Format.VHDX}
_VHD_FIXED, _VHD_DYNAMIC = 2, 3
_QCOW2_EXTERNAL_DATA: Final = 1 << 2


class Image(msgspec.Struct, frozen=True):
    """What QEMU opens: the first `size` bytes of the file when that is not 0, else all; `device` says that it is a block device."""

    path: str
    format: Format
    size: int
    device: bool


def open_image(path: str, *, read_only: bool, device: bool) -> tuple[int, Image]:
    """Open an image, which must be a block device or a regular file as `device` says, and find out what it is.

    Raises:
        NotFound: there is no such file.
        HostError: it cannot be opened.
        InvalidOptions: it is something else than was said.
        Unsupported: it refers to other files, or is encrypted.
    """
    try:
        fd = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise NotFound(f"{path}: no such file") from error
    except OSError as error:
        raise HostError(f"{path}: cannot be opened {'' if read_only else 'for writing '}as a disk: {error.strerror}") from error
    try:
        _check_kind(path, os.fstat(fd).st_mode, device=device)
        return fd, image_of(path, fd, device=device)
    except BaseException:
        os.close(fd)
        raise


def image_of(path: str, fd: int, *, device: bool = False) -> Image:
    """Say what the open file is that is called `path`.

    Raises:
        HostError: it cannot be read.
        InvalidOptions, Unsupported: as `inspect`.
    """
    try:
        length = os.lseek(fd, 0, os.SEEK_END)
        return inspect(path, length, lambda size, offset: os.pread(fd, size, offset), device=device)
    except OSError as error:
        raise HostError(f"{path}: cannot be read: {error.strerror}") from error


def _check_kind(path: str, mode: int, *, device: bool) -> None:
    if device and not stat.S_ISBLK(mode):
        raise InvalidOptions(f"{path}: is not a block device: only those are passed through")
    if not device and not stat.S_ISREG(mode):
        what = "a block device: attach it as a physical disk" if stat.S_ISBLK(mode) else "not a regular file"
        raise InvalidOptions(f"{path}: is {what}")


def inspect(path: str, length: int, read: Callable[[int, int], bytes], *, device: bool) -> Image:
    """Say what the image of `length` bytes is. `read` returns so many bytes from an offset, less at the end.

    Raises:
        InvalidOptions: it is not what its name says.
        Unsupported: see `open_image`.
    """
    kind = Format.RAW if device else _BY_NAME.get(PurePath(path).suffix.lower(), Format.RAW)
    match kind:
        case Format.QCOW2:
            _check_qcow2(path, read(104, 0))
        case Format.VHDX:
            if read(8, 0) != b"vhdxfile":
                raise InvalidOptions(f"{path}: is no VHDX image, as its name says")
        case Format.VHD:
            if _vhd_type(path, read(SECTOR, max(0, length - SECTOR))) == _VHD_FIXED:  # which is a raw disk with a footer
                return Image(path, Format.RAW, length - SECTOR, device)
    if kind is Format.RAW and (length == 0 or length % SECTOR):
        raise InvalidOptions(f"{path}: {length} bytes are not a number of sectors of {SECTOR} bytes, as a raw disk must have")
    return Image(path, kind, 0, device)


def _check_qcow2(path: str, header: bytes) -> None:
    if len(header) < 72 or header[:4] != b"QFI\xfb":
        raise InvalidOptions(f"{path}: is no qcow2 image, as its name says")
    version, backing, encryption = struct.unpack_from(">I Q", header, 4) + struct.unpack_from(">I", header, 32)
    features = struct.unpack_from(">Q", header, 72)[0] if version > 2 and len(header) >= 80 else 0
    if backing:
        raise Unsupported(f"{path}: has a backing file", hint="flatten it: qemu-img convert")
    if features & _QCOW2_EXTERNAL_DATA:
        raise Unsupported(f"{path}: has its data in another file", hint="flatten it: qemu-img convert")
    if encryption:
        raise Unsupported(f"{path}: is encrypted")


def _vhd_type(path: str, footer: bytes) -> int:
    if len(footer) < SECTOR or footer[:8] != b"conectix":
        raise InvalidOptions(f"{path}: is no VHD image, as its name says")
    (kind,) = struct.unpack_from(">I", footer, 60)
    if kind not in {_VHD_FIXED, _VHD_DYNAMIC}:
        raise Unsupported(f"{path}: is a differencing VHD, whose rest is in another file", hint="merge it with its parent")
    return int(kind)
