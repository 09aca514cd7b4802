"""Layers that we made of archives, in a guest: what it shows, and whose memory their pages are."""

import hashlib
import os
import stat
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.unit.images.reader import File, Reader
from tests.unit.images.tars import Item, archive, folder, hard_link, link

from utilityvm import UtilityVM, create_lcow, default_options_lcow
from utilityvm.boot.files import BootFiles
from utilityvm.devices.layers import Bus
from utilityvm.images.layer import convert

from .disks import MIB
from .running import qemu_of, sh

LARGE = 500 * MIB

LOWER = (
    folder("./"),
    folder("etc"),
    Item("etc/passwd", b"root:x:0:0::/root:/bin/sh\n", mtime=1_700_000_000),
    Item("etc/shadow", b"root:*\n", mode=0o640, uid=7, gid=42),
    folder("tmp", 0o1777),
    Item("usr/bin/su", b"\x7fELF" + bytes(range(256)) * 40, mode=0o4755),
    hard_link("usr/bin/also", "usr/bin/su"),
    link("bin", "usr/bin"),
    link("far", "/" + "t" * 4000),
    Item("null", type=tarfile.CHRTYPE, device=(1, 3), mode=0o666),
    Item("disk", type=tarfile.BLKTYPE, device=(259, 70_000), mode=0o660, gid=6),
    Item("pipe", type=tarfile.FIFOTYPE),
    Item("odd/名前 *?[", b"odd", uid=1000, gid=1000),
    Item("odd/" + "n" * 255, b"long"),
    Item("empty"),
    Item("exact", b"e" * 8192),
    Item("large", os.urandom(3_000_001)),
    Item("before", b"x", mtime=-86_400),
    *(Item(f"many/{number:05}", b"%d" % number) for number in range(1000)),
    Item("gone/.wh.away"),
)


def image_of(data: bytes, path: Path) -> dict[bytes, File]:
    with path.with_suffix(".tar").open("w+b") as tar, path.open("w+b") as out:
        tar.write(data)
        tar.seek(0)
        convert(tar, out)
    path.chmod(0o644)
    return Reader(path.read_bytes()).files


async def shown(vm: UtilityVM, root: str) -> dict[bytes, tuple[object, ...]]:
    """What the guest says of every file: mode, owner, time, links, size of what is not a folder, device, and the content's digest."""
    known = await sh(vm, f"cd {root} && find . -exec stat -c '%f %u %g %Y %h %s %t %T %n' {{}} +")
    digests = await sh(vm, f"cd {root} && find . -type f -exec sha256sum {{}} +")
    links = await sh(vm, f'cd {root} && find . -type l -exec sh -c \'for n; do echo "$(readlink "$n") $n"; done\' - {{}} +')
    assert (known.code, digests.code, links.code, known.err) == (0, 0, 0, b"")
    content = {name: digest for digest, _, name in (line.partition(b"  ") for line in digests.out.splitlines())}
    content |= {name: target for target, _, name in (line.rpartition(b" ./") for line in links.out.splitlines())}
    found: dict[bytes, tuple[object, ...]] = {}
    for line in known.out.splitlines():
        mode, uid, gid, time, count, size, major, minor, name = line.split(b" ", 8)
        form = int(mode, 16)
        is_folder = stat.S_ISDIR(form)
        told = content.get(name, content.get(name.removeprefix(b"./"), b""))
        facts = (form, int(uid), int(gid), int(time), int(count), 0 if is_folder else int(size), int(major, 16), int(minor, 16), told)
        found[name.removeprefix(b".").removeprefix(b"/")] = facts
    return found


def expected(files: dict[bytes, File]) -> dict[bytes, tuple[object, ...]]:
    found: dict[bytes, tuple[object, ...]] = {}
    for name, file in files.items():
        is_folder = stat.S_ISDIR(file.mode)
        told = hashlib.sha256(file.data).hexdigest().encode() if stat.S_ISREG(file.mode) else file.data if stat.S_ISLNK(file.mode) else b""
        size = 0 if is_folder else file.size
        found[name] = (file.mode, file.uid, file.gid, file.mtime // 10**9, file.links, size, *file.device, told)
    return found


@asynccontextmanager
async def running(boot_files: BootFiles) -> AsyncIterator[UtilityVM]:
    options = default_options_lcow(boot_files_path=str(boot_files.folder), memory_size_in_mb=256, processor_count=1)
    async with await create_lcow(options) as vm:
        await vm.start()
        yield vm


@pytest.mark.parametrize("bus", Bus)
async def test_a_guest_shows_of_a_layer_what_its_archive_has(boot_files: BootFiles, tmp_path: Path, bus: Bus) -> None:
    files = image_of(archive(*LOWER), tmp_path / "layer.img")
    async with running(boot_files) as vm:
        if bus is Bus.VPMEM:
            place = (await vm.layers.add(str(tmp_path / "layer.img"))).guest_path
            assert f" {place} erofs ro" in (mounts := (await sh(vm, "cat /proc/mounts")).out.decode())
            assert "dax=always" in mounts
        else:
            place = "/l"
            await vm.scsi.add(str(tmp_path / "layer.img"), place, read_only=True, options=("ro",))
        assert await shown(vm, place) == expected(files)


def mapped(pid: int, image: Path) -> tuple[int, int]:
    """Return how many bytes of a file are resident in a process, and how many when those shared with others are divided."""
    resident = proportional = 0
    ours = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        word, _, rest = line.partition(":")
        if "-" in word and " " in line[:40]:
            ours = line.endswith(image.name)
        elif ours and word in {"Rss", "Pss"}:
            size = int(rest.split()[0]) * 1024
            resident, proportional = resident + size * (word == "Rss"), proportional + size * (word == "Pss")
    return resident, proportional


async def cached(vm: UtilityVM) -> int:
    words = (await sh(vm, "grep '^Cached:' /proc/meminfo")).out.split()
    return int(words[1]) * 1024


async def test_two_vms_share_the_pages_of_a_layer_and_neither_keeps_its_own(boot_files: BootFiles, tmp_path: Path) -> None:
    image = tmp_path / "large.img"
    image_of(archive(*(Item(f"{number}", os.urandom(LARGE // 10)) for number in range(10))), image)
    async with running(boot_files) as first, running(boot_files) as second:
        for vm in (first, second):
            before = await cached(vm)
            place = (await vm.layers.add(str(image))).guest_path
            assert (await sh(vm, f"cat {place}/* >/dev/null")).code == 0
            assert await cached(vm) - before < 16 * MIB, "the guest keeps pages of its own"
        for vm in (first, second):
            resident, proportional = mapped(qemu_of(vm.id), image)
            assert resident >= LARGE
            assert proportional <= 0.55 * resident, "the pages are not shared"
