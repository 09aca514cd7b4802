"""Devices of a machine that is saved, and what a clone of it gets: on a QEMU that is played."""

import os
import shutil
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from msgspec import structs
from tests.unit.compute.qemu import Qemu, played

from utilityvm.compute.qemu import inherited as module
from utilityvm.compute.qemu.hotplug import Hotplug
from utilityvm.compute.qemu.inherited import Inherited
from utilityvm.compute.qemu.keeping import MOST_FILES, Content, Keeping
from utilityvm.compute.qemu.monitor import Monitor
from utilityvm.compute.qemu.overlay import CLUSTER, overlay
from utilityvm.compute.qemu.pins import Pins
from utilityvm.kit.errors import Corrupt, HostError, NotFound, StateError, Unsupported, UtilityVMError
from utilityvm.kit.files import digest, identity
from utilityvm.kit.ids import VmId
from utilityvm.kit.proc import run_tool
from utilityvm.schema.requests import ModifySettingRequest
from utilityvm.store.devices import Devices, DiskRecord, FileRecord, PmemRecord, ShareRecord

MIB: Final = 1 << 20
ADDRESS: Final = 1 << 32


class Machine:
    """A machine with its devices: `devices` is what its tables say of them, `others` what no clone can have."""

    def __init__(self, monitor: Monitor, qemu: Qemu) -> None:
        self.monitor, self.qemu = monitor, qemu
        self.hotplug = Hotplug(monitor, "vm x", controllers=1, pmem=64, pins=Pins(0, os.getpid))
        self.devices, self.others = Devices(), list[str]()
        self.keeping = Keeping(VmId("x"), lambda: self.devices, self.hotplug, lambda _: self.others)
        qemu.tells["query-memory-devices"] = [{"type": "virtio-pmem", "data": {"id": "pmem2", "memaddr": ADDRESS}}, {"type": "dimm"}, 7]

    async def disk(self, path: Path | str, *, lun: int = 0, read_only: bool = False, kind: str = "VirtualDisk") -> None:
        """Attach a disk, and put it into the table."""
        settings = {"Type": kind, "Path": str(path), "ReadOnly": read_only}
        place = f"VirtualMachine/Devices/Scsi/0/Attachments/{lun}"
        await self.hotplug.modify(ModifySettingRequest(resource_path=place, request_type="Add", settings=settings))
        record = DiskRecord(controller=0, lun=lun, host_path=str(path), guest_path="/mnt", read_only=read_only)
        self.devices = structs.replace(self.devices, disks=(*self.devices.disks, record))

    async def pmem(self, path: Path) -> None:
        """Attach persistent memory, and put it into the table."""
        settings = {"HostPath": str(path), "ReadOnly": True, "ImageFormat": "Vhd1"}
        place = "VirtualMachine/Devices/VirtualPMem/Devices/2"
        await self.hotplug.modify(ModifySettingRequest(resource_path=place, request_type="Add", settings=settings))
        self.devices = structs.replace(self.devices, pmem=(PmemRecord(slot=2, host_path=str(path), guest_path="/run/layers/p2"),))

    async def kept(self) -> tuple[Devices, tuple[Content, ...]]:
        """Save them."""
        await self.keeping.prepare("saved as a template")
        return await self.keeping.kept(self.monitor)


@asynccontextmanager
async def machine() -> AsyncIterator[Machine]:
    async with played() as (monitor, qemu):
        rig = Machine(monitor, qemu)
        yield rig
        rig.hotplug.close()


def image(path: Path, content: bytes = b"", size: int = 2 * MIB) -> Path:
    path.write_bytes(content)
    os.truncate(path, size)
    path.chmod(0o644)
    return path


# -- saved --------------------------------------------------------------------------------------------------------------


async def test_of_a_disk_that_is_written_its_file_is_kept_and_of_others_their_digests(tmp_path: Path) -> None:
    async with machine() as rig:
        await rig.disk(image(tmp_path / "a.img"))
        await rig.disk(image(tmp_path / "b.qcow2", overlay(MIB)), lun=1)
        await rig.disk(image(tmp_path / "c.img", b"read"), lun=2, read_only=True)
        await rig.pmem(image(tmp_path / "layer", b"layer"))
        devices, contents = await rig.kept()
        first, second, third = devices.disks
        assert [first.content, second.content, third.content] == [("scsi0-0-0.raw",), ("scsi0-1-0.qcow2",), ()]
        for content, name in zip(contents, ("a.img", "b.qcow2"), strict=True):
            assert os.path.samestat(os.fstat(content.fd), (tmp_path / name).stat())
        assert third.file is not None
        assert len(third.file.sha256) == 64
        (device,) = devices.pmem
        assert (device.address, device.guest_path) == (ADDRESS, "/run/layers/p2")
        assert device.file is not None
        assert device.file.sha256 != third.file.sha256


async def test_a_disk_without_a_name_is_called_by_its_place(tmp_path: Path) -> None:
    async with machine() as rig:
        with image(tmp_path / "a").open("r+b") as file:
            (tmp_path / "a").unlink()
            await rig.disk(f"/proc/self/fd/{file.fileno()}")
        (disk,) = (await rig.kept())[0].disks
        assert disk.host_path == "x:scsi0-0"


async def test_for_clones_that_are_made_at_once_no_file_is_read(tmp_path: Path) -> None:
    async with machine() as rig:
        await rig.pmem(image(tmp_path / "layer"))
        await rig.keeping.prepare("forked", by_content=False)
        (device,) = (await rig.keeping.kept(rig.monitor))[0].pmem
        assert device.file is not None
        assert device.file.sha256 == ""
        Inherited("vm x", Devices(pmem=(device,)), {}, tmp_path, tmp_path).close()
        os.utime(tmp_path / "layer", (0, 0))
        with pytest.raises(Unsupported, match="layer, which it reads, is not what it was"):
            Inherited("vm x", Devices(pmem=(device,)), {}, tmp_path, tmp_path)


async def test_a_file_whose_digest_is_known_is_not_read_until_it_is_another(tmp_path: Path) -> None:
    path = image(tmp_path / "layer", b"layer")
    known = {identity(path): "f" * 64}
    async with machine() as rig:
        await rig.pmem(path)
        await rig.keeping.prepare("saved", known)
        (device,) = (await rig.keeping.kept(rig.monitor))[0].pmem
        assert device.file == FileRecord(sha256="f" * 64, identity=identity(path))
    os.utime(path, (0, 0))
    async with machine() as rig:
        await rig.pmem(path)
        await rig.keeping.prepare("saved", known)
        (device,) = (await rig.keeping.kept(rig.monitor))[0].pmem
        assert device.file == FileRecord(sha256=digest(path), identity=identity(path))


async def test_all_that_cannot_be_kept_is_named_at_once(tmp_path: Path) -> None:
    async with machine() as rig:
        await rig.disk(image(tmp_path / "v.vhdx", b"vhdxfile"))
        with image(tmp_path / "n").open("rb") as file:
            nameless = f"/proc/self/fd/{file.fileno()}"
            await rig.disk(nameless, lun=1, read_only=True)
            await rig.disk(image(tmp_path / "t.img"), lun=2)
            rig.devices = structs.replace(rig.devices, disks=rig.devices.disks[:2])
            await rig.pmem(image(tmp_path / "layer"))
            (tmp_path / "layer").unlink()
            rig.others = ["a network adapter"]
            with pytest.raises(Unsupported) as caught:
                await rig.keeping.prepare("saved as a template")
        said = caught.value.message.removeprefix("vm x: cannot be saved as a template: it has ").split(", ")
        assert said == [
            f"{tmp_path}/v.vhdx (scsi0-0)",
            "a disk that is written and neither raw nor qcow2",
            f"{nameless} (scsi0-1)",
            "a file without a name",
            f"{tmp_path}/t.img (scsi0-2)",
            "which is in no table of the VM",
            f"{tmp_path}/layer (pmem2)",
            "whose file was changed or removed meanwhile",
            "a network adapter",
        ]


async def test_a_file_that_comes_while_others_are_read_is_told(tmp_path: Path) -> None:
    async with machine() as rig:
        await rig.keeping.prepare("saved as a template")
        await rig.pmem(image(tmp_path / "layer"))
        with pytest.raises(StateError, match="vm x: cannot be saved as a template while given another device meanwhile"):
            await rig.keeping.kept(rig.monitor)


# -- gone on from -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shares_blocks", [False, True], ids=["overlay", "shared blocks"])
async def test_a_clone_writes_to_a_file_of_its_own_and_its_clone_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, shares_blocks: bool
) -> None:
    """What no file system here does is played: blocks are shared by a copy."""

    def share(source: int, target: int) -> bool:
        return shares_blocks and os.pwrite(target, os.pread(source, 2 * MIB, 0), 0) > 0

    monkeypatch.setattr(module, "share_blocks", share)
    record = DiskRecord(controller=0, lun=1, host_path="t:scsi0-1", read_only=False, content=("scsi0-1-0.raw",))
    async with machine() as rig:
        with image(tmp_path / "disk", b"template").open("rb") as file:
            inherited = Inherited("template t", Devices(disks=(record,)), {"scsi0-1-0.raw": file.fileno()}, tmp_path / "s", tmp_path)
        assert list((tmp_path / "s").iterdir()) == []
        await inherited.plug_in(rig.hotplug)
        rig.devices = inherited.devices
        node = rig.qemu.arguments[rig.qemu.heard.index("blockdev-add")]
        below = None if shares_blocks else {"driver": "raw", "filename": "/dev/fdset/1"}
        backing = node.get("backing")
        assert (node["driver"], node["read-only"], node["node-name"]) == ("raw" if shares_blocks else "qcow2", False, "scsi0-1-disk")
        assert below is None or (isinstance(backing, dict) and backing["file"]["filename"] == below["filename"] and backing["read-only"])
        assert rig.qemu.heard == ["add-fd"] * (1 if shares_blocks else 2) + ["blockdev-add", "device_add"]
        devices, contents = await rig.kept()
        names = ["scsi0-1-0.raw"] if shares_blocks else ["scsi0-1-0.raw", "scsi0-1-1.qcow2"]
        assert [content.name for content in contents] == names
        assert devices.disks[0].host_path == "t:scsi0-1"
        again = Inherited("vm x", devices, {content.name: content.fd for content in contents}, tmp_path / "s", tmp_path)
        again.close()
        again.close()
        await rig.hotplug.modify(ModifySettingRequest(resource_path="VirtualMachine/Devices/Scsi/0/Attachments/1", request_type="Remove"))
        assert rig.qemu.heard[-4 - len(names) :].count("remove-fd") == len(names)
        assert (tmp_path / "disk").read_bytes()[:8] == b"template"


async def test_persistent_memory_is_where_the_guest_has_it(tmp_path: Path) -> None:
    async with machine() as rig:
        await rig.pmem(image(tmp_path / "layer"))
        devices, _ = await rig.kept()
    async with machine() as rig:
        await Inherited("template t", devices, {}, tmp_path, tmp_path).plug_in(rig.hotplug)
        assert rig.qemu.arguments[-1]["memaddr"] == ADDRESS


async def test_a_file_that_has_moved_is_found_by_its_name_and_one_that_was_changed_or_is_gone_is_told(tmp_path: Path) -> None:
    (store := tmp_path / "store").mkdir()
    async with machine() as rig:
        await rig.pmem(image(tmp_path / "layer.erofs", b"layer"))
        devices, _ = await rig.kept()

    def inherit() -> str:
        inherited = Inherited("template t", devices, {}, tmp_path, store)
        inherited.close()
        return inherited.devices.pmem[0].host_path

    assert inherit() == str(tmp_path / "layer.erofs")
    os.utime(tmp_path / "layer.erofs", (0, 0))
    assert inherit() == str(tmp_path / "layer.erofs"), "its content is the same"
    shutil.move(tmp_path / "layer.erofs", store)
    assert inherit() == str(store / "layer.erofs")
    image(tmp_path / "layer.erofs", b"another")
    assert inherit() == str(store / "layer.erofs")
    image(store / "layer.erofs", b"another")
    with pytest.raises(Unsupported, match=r"^template t: .*/layer\.erofs, which it reads, is not what it was$"):
        inherit()
    for folder in (tmp_path, store):
        (folder / "layer.erofs").unlink()
    with pytest.raises(NotFound, match=r"^template t: .*/layer\.erofs, which it reads, is gone, and .*/store has it not$"):
        inherit()


def disk(*content: str) -> Devices:
    return Devices(disks=(DiskRecord(controller=0, lun=0, host_path="a", read_only=False, content=content),))


UNREADABLE: Final = PmemRecord(slot=0, host_path="/proc/self/mem", file=FileRecord(sha256="0" * 64, identity=""))
FOLDER: Final = ShareRecord(name="0", host_path="/nowhere/at/all", guest_path="/s", read_only=True)
LEADS: Final = overlay(MIB)[:8] + struct.pack(">QI", 112, 4) + overlay(MIB)[20:]


@pytest.mark.parametrize(
    ("devices", "content", "kind", "said"),
    [
        (disk("scsi0-0-1.raw"), b"", Corrupt, "^template t: scsi0-0-1.raw, in which a disk of it is, is missing$"),
        (disk("scsi0-0-0.raw", "scsi0-0-1.raw"), b"", Corrupt, "^template t: scsi0-0-1.raw, in which"),
        (disk("scsi0-0-0.qcow2"), LEADS, Unsupported, "^template t: scsi0-0-0.qcow2: has a backing file$"),
        (Devices(pmem=(UNREADABLE,)), b"", HostError, "^template t: /proc/self/mem, which it reads, cannot be read: "),
        (Devices(shares=(FOLDER,)), b"", NotFound, "^template t: /nowhere/at/all, a folder that it shares, is gone$"),
        (structs.replace(disk("scsi0-0-0.raw"), shares=(FOLDER,)), b"", NotFound, "a folder that it shares"),
    ],
)
def test_a_template_that_lacks_something_leaves_nothing_open(
    tmp_path: Path, devices: Devices, content: bytes, kind: type[UtilityVMError], said: str
) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with image(tmp_path / "disk", content).open("rb") as file:
        contents = {name: file.fileno() for name in ("scsi0-0-0.raw", "scsi0-0-0.qcow2")}
        with pytest.raises(kind, match=said):
            Inherited("template t", devices, contents, tmp_path, tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_where_no_file_can_be_made_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with image(tmp_path / "disk").open("rb") as file, pytest.raises(HostError, match="file/scratch: no disk can be made here"):
        Inherited("template t", disk("scsi0-0-0.raw"), {"scsi0-0-0.raw": file.fileno()}, tmp_path / "file" / "scratch", tmp_path)


async def test_what_cannot_be_plugged_in_is_let_go_of(tmp_path: Path) -> None:
    contents = ("scsi0-0-0.raw",)
    async with machine() as rig:
        with image(tmp_path / "disk").open("rb") as file:
            inherited = Inherited("template t", disk(*contents), {contents[0]: file.fileno()}, tmp_path, tmp_path)
        rig.qemu.fails = "device_add"
        with pytest.raises(HostError):
            await inherited.plug_in(rig.hotplug)
        assert rig.hotplug.plugged == {}


async def test_a_disk_may_be_in_so_many_files(tmp_path: Path) -> None:
    names = tuple(f"scsi0-0-{number}.raw" for number in range(MOST_FILES))
    async with machine() as rig:
        with image(tmp_path / "disk").open("rb") as file:
            inherited = Inherited("vm x", disk(*names), dict.fromkeys(names, file.fileno()), tmp_path, tmp_path)
        await inherited.plug_in(rig.hotplug)
        rig.devices = inherited.devices
        with pytest.raises(Unsupported, match=f"a disk in {MOST_FILES + 1} files, of which one may have {MOST_FILES}"):
            await rig.keeping.prepare("saved as a template")


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="there is no qemu-img")
@pytest.mark.parametrize("size", [512, MIB, 10 << 30, 16 << 40])
def test_an_overlay_is_a_qcow2_image_without_a_fault(tmp_path: Path, size: int) -> None:
    (path := tmp_path / "o.qcow2").write_bytes(overlay(size))
    assert path.stat().st_size % CLUSTER == 0
    assert "No errors were found" in run_tool(["qemu-img", "check", str(path)], within=30)
    assert f"({size} bytes)" in run_tool(["qemu-img", "info", str(path)], within=30)
