"""One path of the guest has one thing, whichever table it is in; what is refused has touched nothing."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from utilityvm.devices.holdings import Held
from utilityvm.devices.mounts import Mount, Mounts
from utilityvm.devices.ports import Seen
from utilityvm.kit.errors import Exists, GuestError, HostError
from utilityvm.vm.uvm import UtilityVM

from .fake import running

Add = Callable[[UtilityVM, str, str], Awaitable[object]]

KINDS: dict[str, Add] = {
    "disk": lambda vm, host, path: vm.scsi.add(host, path),
    "device": lambda vm, host, path: vm.scsi.add_physical_disk(host, path),
    "folder": lambda vm, host, path: vm.plan9.add(host, path),
}
LAYER = "/run/layers/p0"


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
async def test_a_second_thing_at_a_path_is_refused_by_both_names_before_the_host_hears_of_it(first: str, second: str) -> None:
    async with running() as world:
        await KINDS[first](world.vm, "/a", "/mnt/x")
        heard = list(world.asked)
        name = "folder" if first == "folder" else "SCSI disk"
        with pytest.raises(Exists, match=f": /b: /mnt/./x/: the {name} /a is attached there$") as caught:
            await KINDS[second](world.vm, "/b", "/mnt/./x/")
        assert "name another path" in caught.value.hint
        assert world.asked == heard


async def test_a_layer_has_the_path_of_its_slot_to_itself() -> None:
    async with running() as world:
        world.seen["/l"] = Seen(folder=False, size=2 << 20, identity=1)
        await world.vm.plan9.add("/d", LAYER)
        with pytest.raises(Exists, match=f"/l: {LAYER}: the folder /d is attached there$"):
            await world.vm.vpmem.add("/l")
        await world.vm.plan9.remove(world.vm.plan9.shares[0])
        await world.vm.vpmem.add("/l")
        with pytest.raises(Exists, match=f"/a: {LAYER}: the layer /l is attached there$"):
            await world.vm.scsi.add("/a", LAYER)


async def test_of_two_that_come_at_once_one_is_refused() -> None:
    async with running() as world:
        async with asyncio.TaskGroup() as group:
            coming = [group.create_task(_tried(world.vm.scsi.add(f"/{name}", "/mnt"))) for name in "abc"]
        assert sorted(task.result() for task in coming) == ["", "vm v: /b: /mnt: the SCSI disk /a", "vm v: /c: /mnt: the SCSI disk /a"]
        assert [disk.host_path for disk in world.vm.scsi.disks] == ["/a"]


async def _tried(work: Awaitable[object]) -> str:
    try:
        await work
    except Exists as error:
        return error.message.partition(" is ")[0].replace(error.message.split(":")[0], "vm v")
    return ""


async def test_a_path_is_free_again_when_what_was_there_has_left_or_failed_to_come() -> None:
    async with running() as world:
        world.guest = lambda _: "no such file system"
        with pytest.raises(GuestError):
            await world.vm.scsi.add("/a", "/mnt")
        world.guest = lambda _: None
        await world.vm.scsi.add("/b", "/mnt")
        await world.vm.scsi.remove("/b")
        await world.vm.plan9.add("/d", "/mnt")


async def test_what_is_half_detached_keeps_no_path() -> None:
    async with running() as world:
        await world.vm.scsi.add("/a", "/mnt")
        world.host = lambda what: HostError("busy") if "Remove" in what else None
        with pytest.raises(HostError):
            await world.vm.scsi.remove("/a")
        assert world.vm.scsi.disk("/a").state == "half detached"
        await world.vm.scsi.add("/b", "/mnt")


async def test_what_is_not_mounted_is_in_nobodys_way() -> None:
    async with running() as world:
        await world.vm.scsi.add("/a")
        await world.vm.scsi.add("/b")
        assert len(world.vm.scsi.disks) == 2


@pytest.mark.parametrize(
    ("there", "wanted", "windows"),
    [("/m", "//m", False), ("/m", "/x/../m", False), ("m", "/m", False), ("C:\\Mnt", "c:/mnt\\", True)],
)
def test_a_path_is_known_in_every_spelling(there: str, wanted: str, windows: bool) -> None:
    mounts = Mounts()
    mounts.watch(lambda: [Mount(there, "it", Held.ATTACHING)])
    with pytest.raises(Exists, match="it is attaching there"):
        mounts.require_free(wanted, "x", windows=windows)
    mounts.require_free("/M" if not windows else "D:\\mnt", "x", windows=windows)
