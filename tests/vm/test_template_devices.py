"""Templates with disks, layers and shares in them, and clones that have these: real virtual machines."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from utilityvm import NotFound, Template, Unsupported, UtilityVM, import_template, open_template
from utilityvm.boot.files import BootFiles
from utilityvm.compute.qemu.overlay import overlay
from utilityvm.images.store import ImageStore
from utilityvm.kit.files import digest
from utilityvm.kit.ids import new_guid
from utilityvm.store import templates as store
from utilityvm.store.layout import Layout

from .containers import spec
from .disks import ext4, loop_device
from .killed import killed_at
from .once import once
from .running import run, sh, until
from .small import a_template_vm, let_others_in

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that other users may look into, as QEMU's does."""
    return let_others_in(tmp_path_factory.mktemp("devices"))


@pytest.fixture(scope="module")
def layers(boot_files: BootFiles, place: Path) -> Sequence[Path]:
    """The layer of the image that comes with the boot files, by a name that this user's own images do not have."""
    (layer,) = ImageStore(place / "store", {"busybox": boot_files.folder / "busybox.tar"}).get("busybox").layers
    return (layer.rename(place / f"{new_guid()}.erofs"),)


WRITER = "while :; do date +%N >>/run/disk/log; sync /run/disk/log; done </dev/null >/dev/null 2>&1 &"

HOLDER = "(exec 7</run/share/f; touch /tmp/holds; while cat <&7; do usleep 100000; done; echo over) </dev/null >/tmp/held 2>&1 &"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def template(boot_files: BootFiles, place: Path, layers: Sequence[Path]) -> AsyncIterator[Template]:
    """A template with a layer that is used twice, a disk that a program writes to all the time, one that is read, and two shares."""
    (place / "share").mkdir()
    (place / "share" / "f").write_text("of the host")
    async with await a_template_vm(boot_files, f"test-{new_guid()}") as vm:
        await vm.start()
        for _ in range(2):
            await vm.layers.add(str(layers[0]))
        await vm.scsi.add(str(ext4(place / "written.img", 32)), "/run/disk")
        await vm.scsi.add(str(ext4(place / "read.img")), "/run/read", read_only=True)
        await vm.share(str(place / "share"), "/run/share", read_only=False)
        await vm.share(str(place / "share" / "f"), "/run/file")
        script = f"echo template >/run/disk/f; md5sum </run/layers/p0/bin/busybox >/tmp/sum; {WRITER} {HOLDER}"
        assert (await sh(vm, script)).code == 0
        await until(vm, "test -e /tmp/holds")
        config = await vm.save_as_template()
    made = await open_template(config.uvm_id)
    yield made
    await made.remove()


async def started(template: Template) -> UtilityVM:
    vm = await template.clone()
    try:
        await vm.start()
    except BaseException:
        await vm.close()
        raise
    return vm


def digests(folder: Path) -> dict[str, str]:
    return {path.name: digest(path) for path in folder.iterdir()}


async def test_two_clones_write_to_the_disk_of_their_template_and_neither_sees_the_other(template: Template, place: Path) -> None:
    before = digests(template.folder)
    assert "scsi0-0-0.raw" in before
    async with await started(template) as one, await started(template) as other:
        for vm, word in ((one, "one"), (other, "other")):
            script = f"cat /run/disk/f; echo {word} >/run/disk/f; dd if=/dev/urandom of=/run/disk/{word} bs=1M count=8"
            assert (await sh(vm, script)).out == b"template\n"
        for vm, word in ((one, "one"), (other, "other")):
            said = await sh(vm, "sync; echo 3 >/proc/sys/vm/drop_caches; cat /run/disk/f; ls /run/disk; wc -l </run/disk/log")
            lines = said.out.decode().split()
            assert (lines[0], set(lines[1:-1])) == (word, {"f", "log", "lost+found", word})
            await until(vm, f"test $(wc -l </run/disk/log) -gt {int(lines[-1])}")  # the program that wrote to it goes on
            assert (await sh(vm, "dmesg | grep -c -e 'EXT4-fs error' -e 'I/O error'")).out == b"0\n"
    assert digests(template.folder) == before
    assert digest(place / "written.img") == before["scsi0-0-0.raw"], "the disk is not what it was when the guest stood still"
    assert list(Layout.of_user().scratch.iterdir()) == [], "a clone's disk has a name"


async def test_a_clone_reads_the_layers_and_disks_of_the_host_that_its_template_read(template: Template, layers: Sequence[Path]) -> None:
    async with await started(template) as vm:
        (layer,) = vm.vpmem.devices
        assert (layer.host_path, layer.guest_path, layer.references) == (str(layers[0]), "/run/layers/p0", 2)
        script = "echo 3 >/proc/sys/vm/drop_caches; md5sum </run/layers/p0/bin/busybox | diff - /tmp/sum && ls /run/read"
        assert (await sh(vm, script)).out == b"lost+found\n"
        assert (await sh(vm, "touch /run/read/x")).code == 1
        assert {disk.guest_path: disk.read_only for disk in vm.scsi.disks} == {"/run/disk": False, "/run/read": True}


async def test_what_a_clone_has_is_removed_and_more_is_added_as_in_any_vm(
    template: Template, layers: Sequence[Path], place: Path, tmp_path: Path
) -> None:
    async with await started(template) as vm:
        (layer,) = vm.vpmem.devices
        await vm.vpmem.remove(str(layers[0]))
        assert (await sh(vm, "ls /run/layers/p0/bin/busybox")).code == 0
        await vm.vpmem.remove(str(layers[0]))
        assert (await sh(vm, "ls /run/layers/p0/bin/busybox")).code != 0
        with pytest.raises(NotFound):
            await vm.vpmem.remove(str(layers[0]))
        assert (await vm.layers.add(str(layers[0]))).guest_path == layer.guest_path
        await sh(vm, "killall sh")
        await until(vm, "umount /run/disk")  # its writer ends a moment after it is told to
        await vm.scsi.remove(str(place / "written.img"))
        await vm.scsi.add(str(ext4(tmp_path / "more.img")), "/run/more")
        assert vm.scsi.disk(str(tmp_path / "more.img")).lun == 0
        assert (await sh(vm, "echo more >/run/more/f; sync; cat /run/more/f; ls /run/disk")).out == b"more\n"
        async with await vm.create_container("c", spec("sleep", "1000"), layers=layers) as container:
            await container.start()
            assert (await container.run(["sh", "-c", "echo written >/f; cat /f"])).stdout == b"written\n"


async def test_shares_are_mounted_again_and_who_had_a_file_open_gets_an_error(template: Template, place: Path) -> None:
    (place / "share" / "f").write_text("of the host")
    async with await started(template) as one, await started(template) as other:
        for vm, word in ((one, "one"), (other, "other")):
            assert (await sh(vm, f"cat /run/share/f /run/file/f; echo {word} >/run/share/{word}")).out == b"of the hostof the host"
            await until(vm, "grep -q 'cat: read error' /tmp/held && grep -q over /tmp/held")
        assert (place / "share" / "one").read_text() == "one\n"
        assert (await sh(other, "cat /run/share/one")).out == b"one\n"
        assert (await sh(one, "echo x >/run/file/f")).code != 0
        (place / "share" / "f").write_text("changed")
        assert (await sh(one, "cat /run/share/f")).out == b"changed"
        first, _ = one.plan9.shares
        await one.plan9.remove(first)
        assert (await sh(one, "ls /run/share")).code != 0
        await one.share(str(place / "share"), "/run/share")
        assert (await sh(one, "cat /run/share/f")).out == b"changed"


async def test_a_layer_or_folder_that_is_gone_or_changed_is_refused_by_name(
    template: Template, layers: Sequence[Path], place: Path
) -> None:
    layer, share = layers[0], place / "share"
    for path in (layer, share):
        away = path.rename(path.with_name("away"))
        with pytest.raises(NotFound, match=f"^template {template.id}: {path}, .*, is gone"):
            await template.clone()
        away.rename(path)
    content = layer.read_bytes()
    layer.write_bytes(content[::-1])
    with pytest.raises(Unsupported, match=f"^template {template.id}: {layer}, which it reads, is not what it was$"):
        await template.clone()
    layer.write_bytes(content)
    async with await started(template) as vm:
        assert (await run(vm, "true")).code == 0


async def test_a_template_with_disks_and_layers_is_exported_and_imported(
    template: Template, layers: Sequence[Path], tmp_path: Path
) -> None:
    await template.export(tmp_path / "t.tar")
    away = layers[0].rename(tmp_path / "away")
    with pytest.raises(NotFound, match=f"{layers[0]}, which it reads, is gone"):
        await import_template(tmp_path / "t.tar", f"test-{new_guid()}")
    away.rename(layers[0])
    made = await import_template(tmp_path / "t.tar", f"test-{new_guid()}")
    assert digest(made.folder / "scsi0-0-0.raw") == digest(template.folder / "scsi0-0-0.raw")
    async with await started(made) as vm:
        assert (await sh(vm, "cat /run/disk/f; ls /run/layers/p0/bin/busybox")).out == b"template\n/run/layers/p0/bin/busybox\n"
    await made.remove()


async def test_a_running_container_with_its_layers_and_its_scratch_disk_goes_on_in_each_clone(
    boot_files: BootFiles, layers: Sequence[Path]
) -> None:
    name = f"test-{new_guid()}"
    async with await a_template_vm(boot_files, name) as vm:
        await vm.start()
        container = await vm.create_container("warm", spec("sh", "-c", "while :; do date >>/log; done"), layers=layers)
        await container.start(stdout=False, stderr=False)
        await vm.save_as_template()
    template = await open_template(name)
    async with await started(template) as one, await started(template) as other:
        for vm in (one, other):
            (disk,) = vm.scsi.disks
            assert (disk.host_path, disk.options) == (f"{name}:scsi0-0", ("discard",))
            log = f"{disk.guest_path}/scratch/warm/upper/log"
            script = f"sync; a=$(wc -l <{log}); sleep 1; sync; b=$(wc -l <{log}); echo $a; test $b -gt $a"
            assert (await sh(vm, script)).code == 0
            async with await vm.create_container("cold", spec("sleep", "1000"), layers=layers) as cold:
                await cold.start()
                assert (await cold.run(["sh", "-c", "ls /log"])).exit_code != 0
    await template.remove()


async def test_a_qcow2_disk_is_kept_as_one(boot_files: BootFiles, place: Path) -> None:
    (path := place / "d.qcow2").write_bytes(overlay(32 << 20))
    path.chmod(0o644)
    name = f"test-{new_guid()}"
    async with await a_template_vm(boot_files, name) as vm:
        await vm.start()
        await vm.scsi.add(str(path))
        assert (await sh(vm, "printf template | dd of=/dev/sda bs=512 seek=5 conv=fsync")).code == 0
        await vm.save_as_template()
    template = await open_template(name)
    for word in (b"one", b"two"):
        async with await started(template) as vm:
            script = f"dd if=/dev/sda bs=512 skip=5 count=1 | head -c 8; printf {word.decode()} | dd of=/dev/sda bs=512 seek=9 conv=fsync; "
            script += "echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/sda bs=512 skip=9 count=1 | head -c 3"
            assert (await sh(vm, script)).out == b"template" + word
    await template.remove()


@pytest.mark.root("make block devices")
async def test_a_disk_of_the_host_and_a_disk_of_another_format_are_refused_by_name_and_the_vm_runs_on(
    boot_files: BootFiles, place: Path
) -> None:
    async with await a_template_vm(boot_files, f"test-{new_guid()}") as vm:
        await vm.start()
        with loop_device(ext4(place / "loop.img")) as device:
            await vm.scsi.add_physical_disk(device, "/run/host")
            with pytest.raises(Unsupported, match=rf"cannot be saved as a template: it has {device} \(scsi0-0\), a disk of the host$"):
                await vm.save_as_template()
            await vm.scsi.remove(device)
        assert (await run(vm, "true")).code == 0


OWNER = """
from utilityvm import create_lcow, default_options_lcow, open_template
from utilityvm.compute.qemu import saving

name, boot_files, disk = sys.argv[1:]
real, copies = saving.copy_sparse, 0

def copy(*words, **more):
    global copies
    copies += 1
    kill(f"before copy {copies}")
    real(*words, **more)

saving.copy_sparse = copy

async def main():
    options = default_options_lcow(id=name, is_template=True, boot_files_path=boot_files, memory_size_in_mb=256, processor_count=1)
    async with await create_lcow(options) as vm:
        await vm.start()
        for at in range(2):
            await vm.scsi.add(disk + str(at))
        await vm.save_as_template()
    if step == "with a clone":
        async with await (await open_template(name)).clone() as vm:
            await vm.start()
            await vm.run(["dd", "if=/dev/urandom", "of=/dev/sda", "bs=1M", "count=4"])
            kill("with a clone")

asyncio.run(main())
"""


@pytest.mark.parametrize(("step", "whole"), [*once(("before copy 2", False), ("before copy 3", False)), ("with a clone", True)])
async def test_an_owner_that_is_killed_leaves_a_whole_template_or_none_and_no_disk(
    boot_files: BootFiles, place: Path, step: str, *, whole: bool
) -> None:
    name, folder, scratch = f"test-{new_guid()}", Layout.of_user().templates, Layout.of_user().scratch
    disks = [ext4(place / f"killed{at}") for at in range(2)]
    await killed_at(step, OWNER, name, str(boot_files.folder), str(place / "killed"))
    left = [path for path in folder.iterdir() if path.name.startswith(".")]
    assert bool(left) != whole
    assert store.sweep(folder) > 0 or whole
    assert [path for path in folder.iterdir() if path.name.startswith(".")] == []
    assert not scratch.exists() or list(scratch.iterdir()) == []
    if whole:
        made = await open_template(name)
        assert digest(made.folder / "scsi0-0-0.raw") == digest(disks[0])
        await made.remove()
    else:
        with pytest.raises(NotFound):
            await open_template(name)
