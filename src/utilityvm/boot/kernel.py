"""A distribution's kernel image: is it one, and the ELF file inside it, which PVH boots. Pure.

The offsets are those of the Linux/x86 boot protocol (Documentation/arch/x86/boot.rst).
"""

import lzma
import struct
import zlib

from utilityvm.boot import elf
from utilityvm.kit.errors import Corrupt, Unsupported

HEAD_SIZE = 0x250
"""So many first bytes of an image are enough for `check_image`."""

_SETUP_SECTORS = 0x1F1
_MAGIC = 0x202
_VERSION = 0x206
_LOAD_FLAGS_64 = 0x236
_PAYLOAD = struct.Struct("<II")
_PAYLOAD_AT = 0x248
_PROTOCOL_WITH_64 = 0x20C
_OTHER_COMPRESSIONS = {
    b"BZh": "bzip2",
    b"\x5d\0\0": "lzma",
    b"\x89LZO": "lzo",
    b"\x02\x21\x4c\x18": "lz4",
    b"\x28\xb5\x2f\xfd": "zstd",
}


def check_image(head: bytes, what: str) -> None:
    """Check that `head`, the first bytes of the file `what`, begins a kernel image (bzImage) for x86-64.

    Raises:
        Corrupt: it is no kernel image.
        Unsupported: it is one for 32-bit processors.
    """
    if len(head) < HEAD_SIZE or head[_MAGIC : _MAGIC + 4] != b"HdrS":
        raise Corrupt(f"{what}: not a Linux kernel image (bzImage)")
    version = int.from_bytes(head[_VERSION : _VERSION + 2], "little")
    if version < _PROTOCOL_WITH_64 or not head[_LOAD_FLAGS_64] & 1:
        raise Unsupported(f"{what}: has no 64-bit entry point, only x86_64 is supported")


def vmlinux(image: bytes, what: str) -> bytes:
    """Return the ELF kernel inside the kernel image `image`; `what` names it in errors.

    Raises:
        Corrupt: it is no kernel image, or what is inside is no ELF file.
        Unsupported: it is for another architecture, or compressed with something else than xz or gzip.
    """
    check_image(image[:HEAD_SIZE], what)
    setup = (image[_SETUP_SECTORS] or 4) + 1
    offset, length = _PAYLOAD.unpack_from(image, _PAYLOAD_AT)
    start = setup * 512 + offset
    if len(image) < start + length:
        raise Corrupt(f"{what}: has {len(image)} bytes, its kernel ends at {start + length}")
    kernel = _decompressed(image[start : start + length], what)
    elf.check_machine(kernel[:20], f"the kernel inside {what}")
    return kernel


def _decompressed(payload: bytes, what: str) -> bytes:
    # four bytes follow the compressed data, the size of what comes out: both readers stop before them
    try:
        if payload.startswith(b"\xfd7zXZ\0"):
            return lzma.LZMADecompressor().decompress(payload)
        if payload.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(payload)
    except (lzma.LZMAError, zlib.error) as error:
        raise Corrupt(f"{what}: its compressed kernel is damaged: {error}") from error
    name = next((name for magic, name in _OTHER_COMPRESSIONS.items() if payload.startswith(magic)), "an unknown method")
    raise Unsupported(f"{what}: its kernel is compressed with {name}; xz and gzip can be read")
