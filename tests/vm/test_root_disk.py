"""A guest whose root file system is a VHD, on the persistent memory device 0. As root and as an ordinary user."""

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace

from utilityvm import HostError, NotFound, NoVPMem, UtilityVM, UtilityVMError, create_lcow, default_options_lcow
from utilityvm.boot.files import BootFiles
from utilityvm.compute.ports import Frozen
from utilityvm.compute.qemu.service import QemuService
from utilityvm.compute.qemu.system import QemuMachine
from utilityvm.kit.errors import Exists
from utilityvm.kit.ids import VmId, new_guid
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.options.paths import PathFlavour
from utilityvm.plan.facts import Counted, Facts, Platform
from utilityvm.plan.lcow import boot_file_paths
from utilityvm.schema.devices import Attachment, Scsi, VirtualPMemDevice
from utilityvm.schema.document import ComputeSystem
from utilityvm.schema.requests import ModifySettingRequest
from utilityvm.vm.compose import create_planned

from .disks import MIB, converted, disk, erofs, ext4, ext4_of, pmem
from .running import LIMIT, of_vm, sh

pytestmark = pytest.mark.asyncio(loop_scope="module")


def unpack(archive: bytes, tree: Path) -> Path:
    """Make a folder of the initrd's files; device nodes, which only root makes, are left out."""
    offset = 0
    while True:
        fields = [int(archive[at : at + 8], 16) for at in range(offset + 6, offset + 110, 8)]
        mode, size, length = fields[1], fields[6], fields[11]
        name = archive[offset + 110 : offset + 110 + length - 1].decode()
        if name == "TRAILER!!!":
            return tree
        begin = offset + -(-(110 + length) // 4) * 4
        data, path = archive[begin : begin + size], tree / name
        if stat.S_ISDIR(mode):
            path.mkdir(parents=True, exist_ok=True)
        elif stat.S_ISLNK(mode):
            path.symlink_to(data.decode())
        elif stat.S_ISREG(mode):
            path.write_bytes(data)
        if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
            path.chmod(stat.S_IMODE(mode))
        offset = begin + -(-size // 4) * 4


@pytest.fixture(scope="module")
def folder(boot_files: BootFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Boot files with a root disk, made of the files of the initrd."""
    made = tmp_path_factory.mktemp("boot")
    made.chmod(0o755)
    for name in ("vmlinux", "initrd.img"):
        (made / name).symlink_to(boot_files.folder / name)
    tree = unpack((boot_files.folder / "initrd.img").read_bytes(), made / "tree")
    (tree / "etc" / "which").write_text("the root disk\n")
    vhd(ext4_of(made / "rootfs.raw", tree, 48))
    return made


def vhd(raw: Path) -> Path:
    made = converted(raw, "vpc", ".vhd", "-o", "subformat=fixed,force_size=on")
    made.chmod(0o644)
    raw.unlink()
    return made


def options(folder: Path, line: str = "") -> OptionsLCOW:
    return default_options_lcow(boot_files_path=str(folder), memory_size_in_mb=256, processor_count=1, kernel_boot_options=line)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rooted(folder: Path) -> AsyncIterator[UtilityVM]:
    async with await create_lcow(options(folder)) as machine:
        await machine.start()
        yield machine


async def test_the_guest_runs_from_the_disk_read_only_and_its_initrd_is_gone(rooted: UtilityVM) -> None:
    assert (await sh(rooted, "cat /etc/which")).out == b"the root disk\n"
    (root,) = [line for line in (await sh(rooted, "mount")).out.decode().splitlines() if " on / " in line]
    assert root.startswith("/dev/pmem0 on / type ext4 (ro,")
    assert "dax" in root
    assert b"Read-only file system" in (await sh(rooted, "touch /x")).err
    kept = int((await sh(rooted, "awk '/^Unevictable/ {print $2}' /proc/meminfo")).out)
    assert kept < 1024, "the initrd's files are still in memory"


async def test_disks_come_and_go_and_the_root_stays(rooted: UtilityVM, tmp_path: Path) -> None:
    image = ext4(tmp_path / "a.img")
    await rooted.modify(disk("Add", 0, image, "/run/d"))
    assert (await sh(rooted, "echo x >/run/d/x; cat /run/d/x")).out == b"x\n"
    await rooted.modify(disk("Remove", 0, image, "/run/d"))
    for kind in ("Add", "Remove"):
        with pytest.raises(Exists, match="is the root file system"):
            await rooted.modify(ModifySettingRequest(resource_path=pmem(kind, 0, image, "").resource_path, request_type=kind))
    assert [device.state for device in rooted.vpmem.devices] == ["root"]


class WithDevices:
    """A service on whose machines there are a disk and a layer from the start."""

    def __init__(self, disk: Path, layer: Path) -> None:
        self.disk = Attachment(type="VirtualDisk", path=str(disk))
        self.layer = VirtualPMemDevice(host_path=str(layer), read_only=True, image_format="Vhd1")

    async def create(
        self, system_id: VmId, document: ComputeSystem, *, savable: bool = False, forkable: bool = False, frozen: Frozen | None = None
    ) -> QemuMachine:
        vm = document.virtual_machine
        assert vm is not None
        assert vm.devices is not None
        assert vm.devices.virtual_pmem is not None
        memory = replace(vm.devices.virtual_pmem, devices=vm.devices.virtual_pmem.devices | {"33": self.layer})
        devices = replace(vm.devices, virtual_pmem=memory, scsi={"0": Scsi(attachments={"7": self.disk})})
        changed = replace(document, virtual_machine=replace(vm, devices=devices))
        return await QemuService().create(system_id, changed, savable=savable, forkable=forkable, frozen=frozen)


async def planned(folder: Path, service: WithDevices) -> UtilityVM:
    asked = options(folder)
    there = boot_file_paths(asked, Platform.QEMU, PathFlavour.POSIX).all
    counted = Counted(logical_processors=1)
    facts = Facts(platform=Platform.QEMU, path_flavour=PathFlavour.POSIX, processors=counted, files_present=there, emulated=True)
    return await create_planned(asked, VmId(new_guid()), facts, service)


def guests(request: ModifySettingRequest) -> ModifySettingRequest:
    """The guest's half."""
    return ModifySettingRequest(guest_request=request.guest_request)


async def test_disks_of_a_document_are_there_from_the_start_and_are_removed_as_others_are(folder: Path, tmp_path: Path) -> None:
    image, layer = ext4(tmp_path / "a.img"), erofs(tmp_path / "l.img", {"f": b"layer"})
    async with asyncio.timeout(LIMIT), await planned(folder, WithDevices(image, layer)) as vm:
        await vm.start()
        for _ in range(2):
            await vm.modify(guests(disk("Add", 7, image, "/run/d")))
            await vm.modify(guests(pmem("Add", 33, layer, "/run/l")))
            assert (await sh(vm, "echo x >/run/d/x; cat /run/d/x /run/l/f")).out == b"x\nlayer"
            with pytest.raises(Exists):
                await vm.modify(disk("Add", 7, image, "/run/e"))
            await vm.modify(disk("Remove", 7, image, "/run/d"))
            await vm.modify(pmem("Remove", 33, layer, "/run/l"))
            await vm.modify(disk("Add", 7, image, ""))
            await vm.modify(pmem("Add", 33, layer, "/run/l"))
            await vm.modify(guests(pmem("Remove", 33, layer, "/run/l")))


async def test_a_disk_of_a_document_that_is_not_there_fails_the_start(folder: Path, tmp_path: Path) -> None:
    layer = erofs(tmp_path / "l.img", {"f": b"layer"})
    async with asyncio.timeout(LIMIT), await planned(folder, WithDevices(tmp_path / "none", layer)) as vm:
        with pytest.raises(NotFound, match="none: no such file"):
            await vm.start()
        assert of_vm(vm.id) == []


# -- what can be wrong with a root --------------------------------------------------------------------------------------


def other_root(folder: Path, to: Path, content: bytes | Path) -> Path:
    """Boot files with another root disk: of these bytes, or an ext4 with a folder's files."""
    for name in ("vmlinux", "initrd.img"):
        (to / name).symlink_to((folder / name).resolve())
    raw = to / "rootfs.raw"
    if isinstance(content, Path):
        ext4_of(raw, content, 16)
    else:
        raw.write_bytes(content)
    vhd(raw)
    to.chmod(0o755)
    return to


async def failure(folder: Path, line: str = "") -> UtilityVMError:
    async with asyncio.timeout(LIMIT), await create_lcow(options(folder, line)) as vm:
        with pytest.raises(UtilityVMError) as caught:
            await vm.start()
    assert of_vm(vm.id) == []
    return caught.value


async def test_a_root_without_a_file_system_is_told_on_the_console(folder: Path, tmp_path: Path) -> None:
    error = await failure(other_root(folder, tmp_path, bytes(4 * MIB)))
    assert isinstance(error, HostError)
    assert "utilityvm: root: /dev/pmem0 has no file system that is known: ext4, erofs or xfs" in error.message
    assert "(powered_off)" in error.message


async def test_a_root_without_an_init_is_told_on_the_console(folder: Path, tmp_path: Path) -> None:
    (tree := tmp_path / "tree").mkdir()
    error = await failure(other_root(folder, tmp_path, tree))
    assert "utilityvm: /init on /dev/pmem0: no such file or directory" in error.message
    assert "(powered_off)" in error.message


async def test_another_device_cannot_be_the_root(folder: Path) -> None:
    error = await failure(folder, "root=/dev/sda")
    assert "utilityvm: kernel command line: root=/dev/sda: the root can only be /dev/pmem0" in error.message


async def test_a_root_that_cannot_be_mapped_is_refused_before_the_guest_runs(folder: Path, tmp_path: Path) -> None:
    error = await failure(other_root(folder, tmp_path, bytes(3 * MIB)))
    assert isinstance(error, NoVPMem)
    assert f"{tmp_path}/rootfs.vhd: {3 * MIB} bytes are not a multiple of 2 MiB" in error.message
    assert "SCSI" not in error.hint
