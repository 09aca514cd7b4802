"""Small files that are what they say: ELF objects, a kernel image, a kernel's modules, a folder of boot files."""

import hashlib
import lzma
import struct
from collections.abc import Mapping
from pathlib import Path

from utilityvm.boot import busybox, cpio
from utilityvm.boot.manifest import FileRecord, KernelRecord, Manifest, encode

DISTRIBUTION = KernelRecord(release="6.1.0-1-amd64")


def elf(sections: Mapping[str, bytes] | None = None, *, machine: int = 62, needed: tuple[str, ...] = (), interpreter: str = "") -> bytes:
    """Make a 64-bit little-endian ELF file with the given sections, a dynamic section for `needed`, and a loader."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in needed)
    offsets = [strings.index(b"\0" + name.encode() + b"\0") + 1 for name in needed]
    table = [("", 0, 0, b""), (".dynstr", 3, 0, strings)]
    if needed:
        table.append((".dynamic", 6, 1, b"".join(struct.pack("<qQ", 1, offset) for offset in offsets) + bytes(16)))
    table += [(name, 1, 0, data) for name, data in (sections or {}).items()]
    names = b"".join(name.encode() + b"\0" for name, *_ in table) + b".shstrtab\0"
    table.append((".shstrtab", 3, 0, names))
    loader = interpreter.encode() + b"\0" if interpreter else b""
    body, rows = loader, []
    start = 64 + 56
    for name, kind, link, data in table:
        rows.append(struct.pack("<IIQQQQIIQQ", names.index(name.encode() + b"\0"), kind, 0, 0, start + len(body), len(data), link, 0, 1, 0))
        body += data
    program = struct.pack("<IIQQQQQQ", 3 if loader else 0, 4, start, 0, 0, len(loader), len(loader), 1)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, machine, 1, 0, 64, start + len(body), 0, 64, 56, 1, 64, len(rows), len(rows) - 1)
    return header + program + body + b"".join(rows)


def calling(code: bytes, calls: Mapping[int, tuple[str, int]]) -> bytes:
    """Make an object file of `code`, with a relocation at each place: of the symbol of this name, and of this kind."""
    names = sorted({name for name, _ in calls.values()})
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    symbols = bytes(24) + b"".join(struct.pack("<IBBHQQ", strings.index(name.encode() + b"\0"), 0, 0, 0, 0, 0) for name in names)
    places = b"".join(struct.pack("<QIIq", place, kind, names.index(name) + 1, -4) for place, (name, kind) in calls.items())
    table = [
        ("", 0, 0, 0, b""),
        (".text", 1, 0, 0, code),
        (".rela.text", 4, 3, 1, places),
        (".symtab", 2, 4, 0, symbols),
        (".strtab", 3, 0, 0, strings),
    ]
    shown = b"".join(name.encode() + b"\0" for name, *_ in table) + b".shstrtab\0"
    table.append((".shstrtab", 3, 0, 0, shown))
    body, rows = b"", []
    for name, kind, link, info, data in table:
        rows.append(struct.pack("<IIQQQQIIQQ", shown.index(name.encode() + b"\0"), kind, 0, 0, 64 + len(body), len(data), link, info, 1, 0))
        body += data
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 1, 62, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64, len(rows), len(rows) - 1)
    return header + body + b"".join(rows)


def bzimage(payload: bytes, *, flags: int = 1) -> bytes:
    """Make a kernel image whose compressed kernel is `payload`."""
    image = bytearray(2 * 512)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    image[0x206:0x208] = (0x20F).to_bytes(2, "little")
    image[0x236] = flags
    struct.pack_into("<II", image, 0x248, 16, len(payload))
    return bytes(image) + bytes(16) + payload


def kernel_image(kernel: bytes) -> bytes:
    """Make a kernel image of `kernel`, compressed as Debian does."""
    return bzimage(lzma.compress(kernel) + len(kernel).to_bytes(4, "little"))


def module(depends: str = "", softdep: str = "") -> bytes:
    """Make a kernel module that says what it needs."""
    entries = [b"license=GPL", f"depends={depends}".encode()]
    if softdep:
        entries.append(f"softdep={softdep}".encode())
    return elf({".modinfo": b"\0".join(entries) + b"\0"})


def boot_files(folder: Path, of: KernelRecord = DISTRIBUTION) -> dict[str, bytes]:
    """Write a folder of boot files that is in order, and return what its files hold."""
    kernel = elf({".text": b"code"})
    contents = {"vmlinux": kernel, "kernel": kernel_image(kernel), "initrd.img": cpio.archive([cpio.file("init", b"agent", 0o755)])}
    contents["busybox.tar"] = busybox.image(kernel, ["sh"], "amd64")
    records = {name: FileRecord(size=len(data), sha256=hashlib.sha256(data).hexdigest()) for name, data in contents.items()}
    agent = FileRecord(size=5, sha256="0" * 64)
    manifest = Manifest(architecture="x86_64", kernel=of, agent=agent, files=records, packages=())
    folder.mkdir()
    for name, data in {**contents, "manifest.json": encode(manifest)}.items():
        (folder / name).write_bytes(data)
    return contents
