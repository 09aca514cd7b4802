"""Disk images for tests, made by the tools that people use."""

import os
import shutil
import subprocess  # noqa: TID251 (tests make images as a user would)
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from utilityvm.schema.requests import ModifySettingRequest

MIB = 1 << 20


_TOOLS = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"  # ordinary users have the latter two not in their path


def _run(tool: str, *arguments: object) -> None:
    argv = [shutil.which(tool, path=_TOOLS) or tool, *map(str, arguments)]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def ext4(path: Path, mib: int = 16) -> Path:
    """An empty ext4."""
    path.touch(mode=0o644)
    os.truncate(path, mib * MIB)
    _run("mkfs.ext4", "-q", "-F", path)
    return path


def ext4_of(path: Path, tree: Path, mib: int) -> Path:
    """An ext4 with the files of a folder, owned by root."""
    path.touch(mode=0o644)
    os.truncate(path, mib * MIB)
    _run("mkfs.ext4", "-q", "-F", "-b", 4096, "-d", tree, "-E", "root_owner=0:0", path)
    return path


def xfs(path: Path, mib: int = 320) -> Path:
    """An empty xfs, which is not made smaller."""
    path.touch(mode=0o644)
    os.truncate(path, mib * MIB)
    _run("mkfs.xfs", "-q", path)
    return path


@contextmanager
def loop_device(image: Path) -> Iterator[str]:
    """A block device of the host, whose content is the image."""
    run = [shutil.which("losetup", path=_TOOLS) or "losetup"]
    device = subprocess.run([*run, "--find", "--show", image], check=True, stdout=subprocess.PIPE).stdout.decode().strip()
    try:
        yield device
    finally:
        subprocess.run([*run, "--detach", device], check=True)


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    """A file system of an image, at a folder of the host."""
    folder.mkdir()
    _run("mount", "-o", "loop", image, folder)
    try:
        yield folder
    finally:
        _run("umount", folder)


def erofs(path: Path, files: Mapping[str, bytes]) -> Path:
    """An EROFS with these files, owned by root, as large as persistent memory wants it."""
    tree = path.with_suffix(".tree")
    for name, content in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
    _run("mkfs.erofs", "--all-root", path, tree)
    size = path.stat().st_size
    os.truncate(path, -(-size // (2 * MIB)) * 2 * MIB)
    path.chmod(0o644)
    return path


def converted(path: Path, format_: str, suffix: str, *options: str) -> Path:
    """The same disk in another format."""
    made = path.with_suffix(suffix)
    _run("qemu-img", "convert", "-f", "raw", "-O", format_, *options, path, made)
    return made


def disk(kind: str, lun: int, path: Path, mount: str, *, read_only: bool = False, options: tuple[str, ...] = ()) -> ModifySettingRequest:
    """Ask for a disk, in both halves; without a mount the host's alone."""
    settings = {"MountPath": mount, "Lun": lun, "ReadOnly": read_only, "Options": list(options)}
    return ModifySettingRequest(
        resource_path=f"VirtualMachine/Devices/Scsi/0/Attachments/{lun}",
        request_type=kind,
        settings={"Type": "VirtualDisk", "Path": str(path), "ReadOnly": read_only},
        guest_request={"RequestType": kind, "ResourceType": "MappedVirtualDisk", "Settings": settings},
    )


def pmem(kind: str, number: int, path: Path, mount: str) -> ModifySettingRequest:
    """Ask for persistent memory, in both halves."""
    return ModifySettingRequest(
        resource_path=f"VirtualMachine/Devices/VirtualPMem/Devices/{number}",
        request_type=kind,
        settings={"HostPath": str(path), "ReadOnly": True, "ImageFormat": "Vhd1"},
        guest_request={"RequestType": kind, "ResourceType": "VPMemDevice", "Settings": {"DeviceNumber": number, "MountPath": mount}},
    )
