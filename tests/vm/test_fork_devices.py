"""Forks of virtual machines with disks, layers and shares: real ones."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from utilityvm import Forked, UtilityVM, open_template
from utilityvm.boot.files import BootFiles
from utilityvm.images.store import ImageStore
from utilityvm.kit.ids import new_guid
from utilityvm.store.layout import Layout

from .containers import spec
from .disks import ext4
from .once import once
from .running import run, sh, until
from .small import a_vm, let_others_in

pytestmark = pytest.mark.asyncio


@pytest.fixture
def layers(boot_files: BootFiles, tmp_path: Path) -> Sequence[Path]:
    """The layers of the image that comes with the boot files."""
    let_others_in(tmp_path)
    return ImageStore(tmp_path / "store", {"busybox": boot_files.folder / "busybox.tar"}).get("busybox").layers


async def give(vm: UtilityVM, layers: Sequence[Path], folder: Path) -> None:
    """Give a VM a layer, a disk and a folder, and write to the disk all the time."""
    (folder / "share").mkdir()
    (folder / "share" / "f").write_text("of the host\n")
    await vm.layers.add(str(layers[0]))
    await vm.scsi.add(str(ext4(folder / "d.img", 32)), "/run/disk")
    await vm.share(str(folder / "share"), "/run/share", read_only=False)
    script = "echo before >/run/disk/f; (while :; do date >>/run/disk/log; done) </dev/null >/dev/null 2>&1 &"
    assert (await sh(vm, script)).code == 0


async def its_own(vm: UtilityVM, was: str, word: str) -> None:
    """Its disk says what was before, and what it writes there; its layer and share are there, and its program goes on."""
    assert (await sh(vm, f"cat /run/disk/f; echo {word} >/run/disk/f; sync")).out.decode() == f"{was}\n"
    lines = int((await sh(vm, "wc -l </run/disk/log")).out)
    await until(vm, f"test $(wc -l </run/disk/log) -gt {lines}")
    script = "echo 3 >/proc/sys/vm/drop_caches; cat /run/disk/f /run/share/f; ls /run/layers/p0/bin/busybox; dmesg | grep -c 'I/O error'"
    assert (await sh(vm, script)).out.decode().split("\n")[:-1] == [word, "of the host", "/run/layers/p0/bin/busybox", "0"]


async def the_child(forked: Forked) -> UtilityVM:
    (child,) = forked.children
    await child.start()
    return child


@pytest.mark.parametrize("forkable", [False, *once(True)])
async def test_parent_child_and_grandchild_write_to_disks_of_their_own(
    boot_files: BootFiles, layers: Sequence[Path], tmp_path: Path, *, forkable: bool
) -> None:
    async with await a_vm(boot_files, forkable=forkable) as parent:
        await parent.start()
        await give(parent, layers, tmp_path)
        async with await parent.fork(forkable=forkable) as forked:
            child = await the_child(forked)
            await its_own(child, "before", "child")
            await its_own(parent, "before", "parent")
            async with await child.fork() as again:
                assert again.technique == ("copy" if forkable else "migrate")
                grandchild = await the_child(again)
                await its_own(child, "child", "child once more")
                await its_own(grandchild, "child", "grandchild")
                (disk,) = grandchild.scsi.disks
                await sh(grandchild, "killall sh")  # this one too
                await until(grandchild, "umount /run/disk")
                await grandchild.scsi.remove(disk.host_path)
            assert list(Layout.of_user().scratch.iterdir()) == []
        await its_own(parent, "parent", "alone")


async def test_a_container_of_the_parent_runs_on_in_both(boot_files: BootFiles, layers: Sequence[Path]) -> None:
    async with await a_vm(boot_files, forkable=True) as parent:
        await parent.start()
        program = spec("sh", "-c", "while :; do date >>/log; done")
        async with await parent.create_container("c", program, layers=layers) as container:
            await container.start(stdout=False, stderr=False)
            async with await parent.fork(2) as forked:
                for vm in forked.children:
                    await vm.start()
                for vm in forked.children:
                    log = f"{vm.scsi.disks[0].guest_path}/scratch/c/upper/log"
                    await sh(vm, f"echo 0 >{log}")
                    await until(vm, f"test $(wc -l <{log}) -gt 2")
            assert (await container.run(["sh", "-c", "head -1 /log"])).stdout != b"0\n"


async def test_a_clone_with_devices_is_forked(boot_files: BootFiles, layers: Sequence[Path], tmp_path: Path) -> None:
    """Its memory is its template's, and only QEMU has what it has changed."""
    name = f"test-{new_guid()}"
    async with await a_vm(boot_files, id=name, is_template=True) as vm:
        await vm.start()
        await give(vm, layers, tmp_path)
        await vm.save_as_template()
    template = await open_template(name)
    async with await template.clone() as clone:
        await clone.start()
        await its_own(clone, "before", "clone")
        async with await clone.fork() as forked:
            assert forked.technique == "migrate"
            await its_own(await the_child(forked), "clone", "child")
        assert (await run(clone, "true")).code == 0
    await template.remove()
