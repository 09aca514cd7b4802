"""A host with an IOMMU, for those that have none: QEMU emulates it, with this machine's files as its own, which stay unchanged."""

import asyncio
import shlex
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from utilityvm.boot import cpio, modules
from utilityvm.boot.apt import Apt
from utilityvm.boot.packages import Packages
from utilityvm.kit.child import Child
from utilityvm.store.layout import Layout

SPARE = "0000:00:06.0"
"""The device that the host can spare: a SCSI controller with one disk."""

ON_DISK = b"from the spare disk"
"""How that disk begins."""

BUSY = "0000:00:07.0"
"""A device without a driver."""

_MODULES = {"host": ("virtio_pci", "9pnet_virtio", "9p", "overlay", "vfio_iommu_type1", "vfio_pci")}

_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in $(cat /order); do insmod /modules/$module.ko; done
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,ro,cache=loose root /ro
mount -t tmpfs t /rw; mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/ro,upperdir=/rw/upper,workdir=/rw/work o /new
for folder in proc sys dev; do mount --move /$folder /new/$folder; done
mkdir -p /new/dev/shm /new/dev/pts
for folder in tmp run dev/shm; do mount -t tmpfs t /new/$folder; done
exec switch_root /new /bin/sh -c {script}
"""


def _initrd(folder: Path, script: str) -> tuple[Path, Path]:
    """Put the host's kernel and initrd into a folder."""
    packages = Packages(Layout.of_user().packages, Apt())
    name = next(name for name in packages.dependencies("linux-image-amd64") if name.startswith("linux-image-"))
    for package in packages.fetch([name, "busybox-static"]):
        packages.unpack(package, folder / package.name)
    (kernel,) = (folder / name / "boot").glob("vmlinuz-*")
    (tree,) = (folder / name / "lib" / "modules").iterdir()
    files = {modules.module_name(path.name): PurePosixPath(path) for path in tree.rglob("*.ko*")}
    built_in = frozenset(modules.module_name(line) for line in (tree / "modules.builtin").read_text().splitlines())
    order = modules.load_order(_MODULES, files, built_in, lambda path: Path(path).read_bytes())["host"]
    busybox = next((folder / "busybox-static").rglob("bin/busybox"))
    entries = [cpio.folder(name) for name in ("bin", "modules", "proc", "sys", "dev", "ro", "rw", "new")]
    entries += [
        cpio.file("bin/busybox", busybox.read_bytes(), 0o755),
        cpio.file("init", _INIT.format(script=shlex.quote(script)).encode(), 0o755),
    ]
    entries += [cpio.file("order", "\n".join(module.name for module in order).encode())]
    entries += [cpio.file(f"modules/{module.name}.ko", module.data) for module in order]
    (folder / "initrd").write_bytes(cpio.archive(entries))
    return kernel, folder / "initrd"


async def run_on_it(folder: Path, argv: list[str], environment: Mapping[str, str], within: float) -> str:
    """Run a program on that host as root, and return all that the host's console has of it. `folder` is for what it needs."""
    words = ["env", *(f"{name}={value}" for name, value in environment.items()), *argv]
    kernel, initrd = _initrd(folder, f"{shlex.join(words)}; echo o >/proc/sysrq-trigger; sleep 60")
    disk, console = folder / "spare.img", folder / "console"
    disk.write_bytes(ON_DISK.ljust(8 << 20, b"\0"))
    line = "console=ttyS0 quiet intel_iommu=on mitigations=off rodata=off panic=-1 cryptomgr.notests no_timer_check"
    child = Child(
        [
            *("qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot", "-serial", f"file:{console}"),
            *("-machine", "q35", "-accel", "tcg", "-cpu", "max,-erms", "-smp", "2", "-m", "3G", "-device", "intel-iommu,intremap=on"),
            *("-kernel", str(kernel), "-initrd", str(initrd), "-append", line),
            *("-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"),
            *("-device", "virtio-9p-pci,fsdev=root,mount_tag=root"),
            *("-device", "virtio-scsi-pci,id=spare,iommu_platform=on,disable-legacy=on,addr=06.0"),
            *("-drive", f"file={disk},format=raw,if=none,id=disk", "-device", "scsi-hd,bus=spare.0,drive=disk", "-device", "edu,addr=07.0"),
        ]
    )
    try:
        async with asyncio.timeout(within):
            await child.wait()
    finally:
        child.kill()
        await child.wait()
        said = console.read_text(errors="replace") if console.exists() else child.output.text(20)
    return said
