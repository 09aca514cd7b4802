"""Virtual machines sleep in a file, and the same ones go on from it."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from utilityvm import Exists, HostError, StateError, Unsupported, restore
from utilityvm.boot.files import BootFiles
from utilityvm.compute.qemu import keeping, records
from utilityvm.kit.files import digest
from utilityvm.kit.ids import new_guid
from utilityvm.store import sleepers

from .disks import ext4
from .killed import killed_at
from .once import once
from .running import run, sh
from .small import a_vm

WARM = (
    "echo before >/tmp/when; echo 00000000000000000000000000000000 >/etc/machine-id; hostname warm; sleep 9999 >/dev/null 2>&1 </dev/null &"
)
SHOW = "cat /tmp/when /etc/machine-id; hostname; pidof sleep"
KEY = "head -c 16 /dev/urandom | md5sum"


async def asleep(boot_files: BootFiles, path: Path, **more: object) -> tuple[str, bytes]:
    """Let a VM sleep in a file; return its id and what it showed before."""
    async with await a_vm(boot_files, **more) as vm:
        await vm.start()
        await sh(vm, WARM)
        shown = (await sh(vm, SHOW)).out
        await vm.save(path)
        assert vm.state == "stopped"
        assert vm.exit_error is None
    return vm.id, shown


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "asleep"
    made.mkdir()
    return made


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("forkable", [False, True])
async def test_the_same_vm_goes_on_with_its_programs_and_names_and_the_time_of_now(
    boot_files: BootFiles, tmp_path: Path, *, forkable: bool
) -> None:
    path, keys = tmp_path / "vm", set[bytes]()
    name, shown = await asleep(boot_files, path, forkable=forkable)
    await asyncio.sleep(2)  # or its clock would be right by itself
    for _ in range(2):
        async with await restore(path) as vm:
            assert vm.id == name
            await vm.start()
            assert abs(float((await sh(vm, "date +%s")).out) - time.time()) < 1.5
            assert (await sh(vm, SHOW)).out == shown
            keys.add((await sh(vm, KEY)).out)
            await sh(vm, "echo lost >/tmp/when")
    assert len(keys) == 2, "random numbers came twice"


async def test_it_sleeps_and_wakes_again_and_is_forked_by_a_copy(boot_files: BootFiles, tmp_path: Path) -> None:
    name, shown = await asleep(boot_files, tmp_path / "first")
    async with await restore(tmp_path / "first") as vm:
        await vm.start()
        await vm.save(tmp_path / "second")
    async with await restore(tmp_path / "second") as vm:
        await vm.start()
        assert (await sh(vm, SHOW)).out == shown
        async with await vm.fork() as forked:
            assert forked.technique == "copy"
            (child,) = forked.children
            await child.start()
            assert (await sh(child, "hostname")).out.decode().strip() == child.id != name
            await child.save(tmp_path / "child")  # its memory is in QEMU's words
    async with await restore(tmp_path / "child") as vm:
        assert vm.id == child.id
        await vm.start()
        assert (await sh(vm, "hostname; cat /tmp/when")).out.split() == [child.id.encode(), b"before"]


@pytest.mark.once
async def test_a_vm_that_is_there_does_not_go_on_twice(boot_files: BootFiles, tmp_path: Path) -> None:
    path = tmp_path / "vm"
    await asleep(boot_files, path)
    async with await restore(path) as vm:
        for started in (False, True):
            with pytest.raises(StateError, match=f"{path}: cannot be restored while its VM is there"):
                await restore(path)
            if not started:
                await vm.start()
    async with await restore(path):
        pass


@pytest.mark.once
async def test_another_qemu_or_kernel_is_refused_with_the_reason(
    boot_files: BootFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "vm"
    await asleep(boot_files, path)
    with monkeypatch.context() as patch:
        patch.setattr(records, "_version", lambda _facts: "9.9.9")
        with pytest.raises(Unsupported, match=f"{path}: was made with QEMU .*, and here is 9.9.9"):
            await restore(path)
    with monkeypatch.context() as patch:
        patch.setattr(records, "identity", lambda file: f"another {file}")
        patch.setattr(records, "digest", lambda _file: "another")
        with pytest.raises(Unsupported, match=f"{path}: was made with another kernel than "):
            await restore(path)
    await (await restore(path)).close()


async def test_its_disks_and_folders_sleep_with_it(boot_files: BootFiles, folder: Path, tmp_path: Path) -> None:
    image, shared, path = ext4(tmp_path / "a.img"), tmp_path / "shared", folder / "vm"
    shared.mkdir()
    (shared / "f").write_text("of the host")
    async with await a_vm(boot_files) as vm:
        await vm.start()
        await vm.scsi.add(str(image), "/run/disk")
        await vm.share(str(shared), "/run/shared")
        await sh(vm, "echo written >/run/disk/f")
        await vm.save(path)
    image.unlink()
    for word in ("first", "second"):
        async with await restore(path) as vm:
            await vm.start()
            shown = (await sh(vm, f"cat /run/disk/f /run/shared/f; echo {word} >/run/disk/f; sync; cat /run/disk/f")).out.decode()
            assert shown == f"written\nof the host{word}\n"
            await vm.scsi.remove(str(image))
    assert names(folder) == ["vm"]


async def test_one_that_sleeps_again_reads_no_file_of_which_it_knows_what_is_in_it(
    boot_files: BootFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, read = ext4(tmp_path / "a.img"), list[Path]()

    def reads(path: Path) -> str:
        read.append(path)
        return digest(path)

    for module in (records, keeping):
        monkeypatch.setattr(module, "digest", reads)
    async with await a_vm(boot_files) as vm:
        await vm.start()
        await vm.scsi.add(str(image), "/run/disk", read_only=True)
        await vm.save(tmp_path / "first")
    assert set(read) == {image, boot_files.vmlinux, boot_files.initrd}
    read.clear()
    async with await restore(tmp_path / "first") as vm:
        await vm.start()
        await vm.save(tmp_path / "second")
    assert read == []
    async with await restore(tmp_path / "second") as vm:
        await vm.start()
        assert (await run(vm, "ls", "/run/disk")).code == 0


async def test_what_cannot_be_saved_is_named_and_the_vm_runs_on_and_what_is_there_stays(
    boot_files: BootFiles, folder: Path, tmp_path: Path
) -> None:
    path = folder / "vm"
    async with await a_vm(boot_files) as vm:
        await vm.start()
        with ext4(tmp_path / "a.img").open("rb") as file:
            nameless = f"/proc/self/fd/{file.fileno()}"
            await vm.scsi.add(nameless, "/run/disk", read_only=True)
            with pytest.raises(Unsupported, match=f"vm {vm.id}: cannot be saved: it has {nameless} .*, a file without a name"):
                await vm.save(path)
            await vm.scsi.remove(nameless)
        path.write_text("here")
        with pytest.raises(Exists):
            await vm.save(path)
        assert path.read_text() == "here"
        assert (await run(vm, "true")).code == 0


@pytest.mark.once
async def test_a_disk_that_is_full_is_told_and_the_vm_runs_on(boot_files: BootFiles, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _data: bytes | memoryview, _offset: int) -> None:
        raise OSError(28, os.strerror(28))

    async with await a_vm(boot_files) as vm:
        await vm.start()
        with monkeypatch.context() as patch:
            patch.setattr(sleepers, "write_all", full)
            with pytest.raises(HostError, match="vm: cannot be written: No space left on device"):
                await vm.save(folder / "vm")
        assert names(folder) == []
        assert (await run(vm, "true")).code == 0


OWNER = """
from utilityvm import create_lcow, default_options_lcow
from utilityvm.store import sleepers

name, boot_files, path = sys.argv[1:]

for function in ("extents", "_digest", "write_all"):
    around(sleepers, function)
around(sleepers, "give_name")

async def main():
    options = default_options_lcow(id=name, boot_files_path=boot_files, memory_size_in_mb=256, processor_count=1)
    async with await create_lcow(options) as vm:
        await vm.start()
        await vm.save(path)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("step", "whole"),
    [
        *once(("before extents", False), ("after write_all", False), ("after _digest", False), ("before give_name", False)),
        ("after give_name", True),
    ],
)
async def test_an_owner_killed_at_any_step_leaves_the_whole_vm_or_nothing(
    boot_files: BootFiles, folder: Path, step: str, *, whole: bool
) -> None:
    name, path = f"test-{new_guid()}", folder / "vm"
    await killed_at(step, OWNER, name, str(boot_files.folder), str(path))
    assert names(folder) == (["vm"] if whole else [])
    if whole:
        async with await restore(path) as vm:
            await vm.start()
            assert (await run(vm, "true")).code == 0
