"""The raw side's initrd: the tiny init, busybox, and of our boot files' kernel modules only those that a virtio-serial port needs."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULES = ("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_console")  # in load order
NEWC_HEADER, NEWC_END = 110, "TRAILER!!!"


class CannotMeasure(Exception):
    """The bench cannot go on; the message says why, and what to do where something is missing on this machine."""


def read_newc(archive: bytes) -> dict[str, bytes]:
    """Regular files of an uncompressed newc archive by absolute path."""
    files: dict[str, bytes] = {}
    at = 0
    while archive[at : at + 6] == b"070701":
        mode, size, name_size = (int(archive[at + 6 + 8 * field :][:8], 16) for field in (1, 6, 11))
        name = archive[at + NEWC_HEADER :][: name_size - 1].decode()
        start = -(-(at + NEWC_HEADER + name_size) // 4) * 4
        if name == NEWC_END:
            break
        if stat.S_ISREG(mode):
            files["/" + name.removeprefix("./").lstrip("/")] = archive[start : start + size]
        at = -(-(start + size) // 4) * 4
    return files


def write_newc(files: dict[str, bytes]) -> bytes:
    """A newc archive of executable files and the folders above them."""
    folders = sorted({str(parent)[1:] for name in files for parent in Path(name).parents} - {""} | {"dev"})
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in folders]
    entries += [(name[1:], stat.S_IFREG | 0o755, data) for name, data in files.items()]
    out = bytearray()
    for number, (name, mode, data) in enumerate([*entries, (NEWC_END, 0, b"")], 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)


def needed_modules(ours: dict[str, bytes]) -> dict[str, bytes]:
    """The modules of MODULES that our initrd carries; none when the kernel has them built in."""
    by_name = {Path(path).name.removesuffix(".ko").replace("-", "_"): data for path, data in ours.items() if path.endswith(".ko")}
    return {f"/{name}.ko": by_name[name] for name in MODULES if name in by_name}


def device_modules(ours: dict[str, bytes], *wanted: str) -> dict[str, bytes]:
    """Besides those, the modules of these groups, in the load order that our initrd tells."""
    groups = dict(line.split(": ", 1) for line in ours["/etc/utilityvm/modules"].decode().splitlines() if ": " in line)
    paths = " ".join(groups.get(group, "") for group in ("boot", *wanted)).split()
    return {f"/{Path(path).name}": ours[path] for path in dict.fromkeys(paths)}


def compile_static(scratch: Path, name: str) -> bytes:
    """A static program, compiled in `scratch`."""
    compiler = shutil.which("gcc")
    if compiler is None:
        raise CannotMeasure("the raw side of the bench is a small C program and gcc is missing: apt-get install gcc libc6-dev")
    program = scratch / name
    subprocess.run([compiler, "-std=gnu11", "-Wall", "-Werror", "-O2", "-static", "-o", program, HERE / f"{name}.c"], check=True)
    return program.read_bytes()


def build(our_initrd: Path, scratch: Path, *groups: str) -> bytes:
    """The raw side's initrd beside our own boot files: same busybox, same modules; those of `groups` besides what it always needs."""
    ours = read_newc(our_initrd.read_bytes())
    if "/bin/busybox" not in ours:
        raise CannotMeasure(f"{our_initrd}: no /bin/busybox in it (is it an uncompressed newc archive?)")
    modules = device_modules(ours, *groups) if groups else needed_modules(ours)
    listing = "".join(f"{path}\n" for path in modules).encode()
    programs = {"/init": compile_static(scratch, "init"), "/bin/busybox": ours["/bin/busybox"]}
    if "net" in groups:
        programs["/bin/stream"] = compile_static(scratch, "stream")
    return write_newc({**programs, "/modules": listing, **modules})
