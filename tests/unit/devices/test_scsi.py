"""The SCSI disks of a running VM: places, modes, what host and guest are asked for."""

import asyncio

import pytest

from utilityvm import DiskAccess
from utilityvm.devices.scsi import Disk
from utilityvm.kit.errors import Exhausted, Exists, HostError, NotFound, StateError, Unsupported
from utilityvm.plan.facts import Platform

from .fake import running

FIRST = "VirtualMachine/Devices/Scsi/0/Attachments/0"
GUEST = "guest Add MappedVirtualDisk"


async def test_a_disk_is_attached_and_mounted_and_leaves_in_the_other_order() -> None:
    async with running() as world:
        disk = await world.vm.scsi.add("/d.img", "/mnt/d", read_only=True, options=("noload",))
        assert disk == Disk(0, 0, "/d.img", "/mnt/d", "VirtualDisk", read_only=True, options=("noload",))
        assert world.vm.scsi.guest_path("/d.img") == "/mnt/d"
        await world.vm.scsi.remove("/d.img")
        assert world.asked == [f"host Add {FIRST}", GUEST, "guest Remove MappedVirtualDisk", f"host Remove {FIRST}"]
        assert world.requests()[0]["Settings"] == {"Type": "VirtualDisk", "Path": "/d.img", "ReadOnly": True}
        assert [one.get("Settings") for one in world.guest_requests()] == [
            {"MountPath": "/mnt/d", "ReadOnly": True, "Options": ["noload"]},
            {"MountPath": "/mnt/d"},
        ]
        assert world.vm.scsi.disks == ()


async def test_on_qemu_the_guest_is_told_of_a_disk_that_it_does_not_mount() -> None:
    async with running() as world:
        await world.vm.scsi.add("/a.img")
        await world.vm.scsi.add("/b.img")
        assert world.guest_requests()[1] == {"RequestType": "Add", "ResourceType": "MappedVirtualDisk", "Settings": {"Lun": 1}}


async def test_on_hyperv_the_guest_finds_such_a_disk_by_itself_and_lets_it_go_when_asked() -> None:
    async with running(Platform.HYPERV) as world:
        await world.vm.scsi.add("/a.img")
        assert world.asked == [f"host Add {FIRST}"]
        await world.vm.scsi.remove("/a.img")
        assert world.asked[1:] == ["guest Remove MappedVirtualDisk", f"host Remove {FIRST}"]


async def test_places_are_filled_from_the_first_and_used_again() -> None:
    async with running() as world:
        for name in "abc":
            await world.vm.scsi.add(f"/{name}")
        await world.vm.scsi.remove("/b")
        assert (await world.vm.scsi.add("/d")).lun == 1
        assert {disk.lun: disk.host_path for disk in world.vm.scsi.disks} == {0: "/a", 1: "/d", 2: "/c"}


async def test_when_all_places_are_taken_the_error_says_how_many_there_are() -> None:
    async with running() as world:
        async with asyncio.TaskGroup() as group:
            for number in range(64):
                group.create_task(world.vm.scsi.add(f"/{number}"))
        assert {disk.lun for disk in world.vm.scsi.disks} == set(range(64))
        with pytest.raises(Exhausted, match="^too many SCSI attachments$") as caught:
            await world.vm.scsi.add("/64")
        assert "has 64 places for SCSI disks, and all are taken" in caught.value.hint
        await world.vm.scsi.remove("/7")
        assert (await world.vm.scsi.add("/64")).lun == 7


async def test_without_a_controller_disks_are_refused_by_the_option() -> None:
    async with running(scsi_controller_count=0) as world:
        for call in (world.vm.scsi.add("/a"), world.vm.scsi.remove("/a")):
            with pytest.raises(Unsupported, match="^no SCSI controllers configured for this utility VM$") as caught:
                await call
            assert "scsi_controller_count 0" in caught.value.hint
        assert world.asked == []


async def test_one_file_is_one_disk_however_often_it_is_added() -> None:
    async with running() as world:
        counts = [(await world.vm.scsi.add("/a", "/mnt", options=options)).references for options in (("b", "a"), ("a", "b"))]
        assert counts == [1, 2]
        await world.vm.scsi.remove("/a")
        assert world.vm.scsi.disk("/a").references == 1
        await world.vm.scsi.remove("/a")
        with pytest.raises(NotFound, match="^not attached$"):
            await world.vm.scsi.remove("/a")
        for lookup in (world.vm.scsi.guest_path, world.vm.scsi.disk):
            with pytest.raises(NotFound, match="^not attached$"):
                lookup("/a")
        assert len(world.asked) == 4


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"read_only": True}, "read_only is False, not True"),
        ({"guest_path": "/other"}, "guest_path is '/mnt', not '/other'"),
        ({"options": ("ro",)}, r"options is \[\], not \['ro'\]"),
    ],
)
async def test_the_same_file_in_another_mode_is_refused_and_stays_as_it_is(other: dict[str, object], sentence: str) -> None:
    async with running(Platform.HYPERV) as world:
        await world.vm.scsi.add("/a", "/mnt")
        asked = list(world.asked)
        wanted = {"guest_path": "/mnt", "access": DiskAccess.GROUP} | other
        with pytest.raises(Exists, match=f"^vm fake: /a is attached in another way: {sentence}$"):
            await world.vm.scsi.add("/a", **wanted)  # type: ignore[arg-type]
        assert (world.asked, world.files.asked, world.vm.scsi.disk("/a").references) == (asked, [], 1)


async def test_a_file_is_no_device_of_the_host() -> None:
    async with running() as world:
        await world.vm.scsi.add("/a", "/mnt")
        with pytest.raises(Exists, match="type is 'VirtualDisk', not 'PassThru'"):
            await world.vm.scsi.add_physical_disk("/a", "/mnt")


async def test_encrypted_is_refused_by_name() -> None:
    async with running() as world:
        with pytest.raises(Unsupported, match="^vm fake: /a: encrypted: no guest agent of ours opens encrypted disks$"):
            await world.vm.scsi.add("/a", "/mnt", encrypted=True)
        assert world.asked == []


@pytest.mark.parametrize(
    ("access", "granted"),
    [
        (DiskAccess.NONE, []),
        (DiskAccess.GROUP, [("grant_group_access", "/a")]),
        (DiskAccess.INDIVIDUAL, [("grant_access", "fake", "/a")]),
    ],
)
async def test_leave_to_open_the_file_is_given_before_it_is_attached(access: DiskAccess, granted: list[tuple[str, ...]]) -> None:
    async with running(Platform.HYPERV) as world:
        await world.vm.scsi.add("/a", access=access)
        assert world.files.asked == granted
        await world.vm.scsi.add("/a", access=access)
        assert world.files.asked == granted * 2


async def test_without_that_leave_nothing_is_attached() -> None:
    async with running(Platform.HYPERV) as world:
        world.files.forbidden = frozenset({"/dev/sdb"})
        with pytest.raises(HostError, match="^failed to grant VM access for SCSI mount: access to /dev/sdb cannot be granted$"):
            await world.vm.scsi.add_physical_disk("/dev/sdb")
        assert (world.asked, world.vm.scsi.disks) == ([], ())


async def test_a_device_of_the_host_is_passed_through() -> None:
    async with running(Platform.HYPERV) as world:
        assert (await world.vm.scsi.add_physical_disk("/dev/sdb", "/mnt")).type == "PassThru"
        assert world.files.asked == [("grant_access", "fake", "/dev/sdb")]
        assert world.requests()[0]["Settings"] == {"Type": "PassThru", "Path": "/dev/sdb"}


async def test_the_host_looks_again_at_a_file_that_has_grown() -> None:
    async with running() as world:
        await world.vm.scsi.add("/a", "/mnt")
        await world.vm.scsi.grow("/a")
        assert world.asked[2:] == [f"host Update {FIRST}", "guest Update MappedVirtualDisk"]
        assert world.requests()[1]["Settings"] == {"Type": "VirtualDisk", "Path": "/a"}
        with pytest.raises(NotFound):
            await world.vm.scsi.grow("/b")


async def test_a_vm_that_does_not_run_is_given_nothing() -> None:
    async with running() as world:
        await world.vm.scsi.add("/a")
        await world.vm.terminate()
        with pytest.raises(StateError, match="^failed to modify UVM with new SCSI mount: vm fake: cannot change a resource while stopped$"):
            await world.vm.scsi.add("/b")
        assert [disk.host_path for disk in world.vm.scsi.disks] == ["/a"]
