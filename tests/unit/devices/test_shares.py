"""Folders, files, devices and pipes of the host in a VM; numbers and rules of a running VM."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from msgspec import structs

from utilityvm.devices.pipes import Pipes, container_pipe, is_pipe
from utilityvm.devices.plan9 import Plan9
from utilityvm.devices.ports import HostSide, Owner, Seen
from utilityvm.devices.share import share
from utilityvm.devices.vpci import VPci
from utilityvm.devices.vsmb import PREFIX, SmbShare, Vsmb
from utilityvm.kit.errors import Exists, GuestError, HostError, InvalidOptions, NotFound, Unsupported, UtilityVMError
from utilityvm.kit.ids import VmId
from utilityvm.options.paths import PathFlavour
from utilityvm.plan.facts import Platform
from utilityvm.plan.windows import VsmbEntry
from utilityvm.schema.devices import HvSocketServiceConfig, NetworkAdapter, VirtualSmbShareOptions
from utilityvm.schema.requests import ModifySettingRequest, ProcessorLimits

from .fake import World, no_namespaces, running

SHARES = "VirtualMachine/Devices/VirtualSmb/Shares"


class Machine:
    """Takes requests as JSON and refuses what it is told to."""

    def __init__(self, *, build: int = 20348, windows: bool = True) -> None:
        self.asked: list[Any] = []
        self.refuses: Callable[[Any], UtilityVMError | None] = lambda _: None
        self.seen = {"C:\\d": Seen(folder=True), "C:\\d\\f": Seen(folder=False), "C:\\d\\g": Seen(folder=False)}
        flavour = PathFlavour.WINDOWS if windows else PathFlavour.POSIX
        host = HostSide(Platform.HYPERV, build, flavour, self.look, None)
        self.owner = Owner(
            VmId("x"), windows=windows, fully_physically_backed=False, host=host, modify=self.modify, guest_knows_namespaces=no_namespaces
        )

    def look(self, path: str) -> Seen:
        if path.rstrip("\\") not in self.seen:
            raise NotFound(f"{path}: no such file or folder")
        return self.seen[path.rstrip("\\")]

    async def modify(self, request: ModifySettingRequest) -> None:
        asked = msgspec.json.decode(msgspec.json.encode(request))
        self.asked.append(asked)
        await asyncio.sleep(0)
        if (refusal := self.refuses(asked)) is not None:
            raise refusal

    @property
    def types(self) -> list[str]:
        """The types of the requests."""
        return [asked["RequestType"] for asked in self.asked]


# -- SMB ----------------------------------------------------------------------------------------------------------------


async def test_a_folder_is_one_share_to_read_and_another_to_write() -> None:
    machine = Machine()
    vsmb = Vsmb(machine.owner)
    read = await vsmb.add("C:\\d\\")
    write = await vsmb.add("C:\\d", vsmb.default_options(read_only=False))
    assert [read.name, write.name] == ["s1", "s2"]
    assert (await vsmb.add("C:\\d")).references == 2
    assert vsmb.guest_path("C:\\d", read_only=False) == f"{PREFIX}s2"
    assert machine.types == ["Add", "Add"]
    await vsmb.remove("C:\\d")
    await vsmb.remove("C:\\d")
    assert [share.name for share in vsmb.shares] == ["s2"]
    assert machine.asked[-1] == {"ResourcePath": SHARES, "RequestType": "Remove", "Settings": {"Name": "s1"}}


async def test_files_of_a_folder_are_one_share_that_grows() -> None:
    machine = Machine()
    vsmb = Vsmb(machine.owner)
    async with asyncio.TaskGroup() as group:
        for name in "fg":
            group.create_task(vsmb.add(f"C:\\d\\{name}"))
    (one,) = vsmb.shares
    assert (one.references, one.of_files, one.allowed_files) == (2, True, ("C:\\d\\f", "C:\\d\\g"))
    assert [(asked["RequestType"], asked["Settings"]["AllowedFiles"]) for asked in machine.asked] == [
        ("Add", ["C:\\d\\f"]),
        ("Update", ["C:\\d\\f", "C:\\d\\g"]),
    ]
    assert (
        machine.asked[0]["Settings"]["Options"] | {"RestrictFileAccess": True, "SingleFileMapping": True}
        == machine.asked[1]["Settings"]["Options"]
    )
    assert vsmb.guest_path("C:\\d\\g") == f"{PREFIX}s1\\g"


async def test_a_file_that_the_host_does_not_add_is_not_shared() -> None:
    machine = Machine()
    vsmb = Vsmb(machine.owner)
    await vsmb.add("C:\\d\\f")
    machine.refuses = lambda _: HostError("no")
    with pytest.raises(HostError, match="^no$"):
        await vsmb.add("C:\\d\\g")
    with pytest.raises(NotFound, match="^not attached$"):
        vsmb.guest_path("C:\\d\\g")
    assert vsmb.shares[0].references == 1


async def test_a_share_of_files_is_removed_as_one_also_when_its_folder_is_gone() -> None:
    machine = Machine()
    vsmb = Vsmb(machine.owner)
    await vsmb.add("C:\\d\\f")
    machine.seen.clear()
    await vsmb.remove("C:\\d\\f")
    assert vsmb.shares == ()
    with pytest.raises(NotFound, match=r"^C:\\d\\f is not present as a VSMB share in x, cannot remove$"):
        await vsmb.remove("C:\\d\\f")


async def test_a_share_that_the_host_keeps_keeps_its_reference() -> None:
    machine = Machine()
    vsmb = Vsmb(machine.owner)
    await vsmb.add("C:\\d")
    machine.refuses = lambda _: HostError("in use")
    for _ in range(2):
        with pytest.raises(HostError, match=r"^failed to remove vsmb share C:\\d from x: in use$"):
            await vsmb.remove("C:\\d")
        assert vsmb.shares[0].references == 1


async def test_a_folder_is_not_shared_with_other_options_than_it_is() -> None:
    machine = Machine()
    vsmb = Vsmb(machine.owner)
    await vsmb.add("C:\\d")
    with pytest.raises(Exists, match=r"^vm x: C:\\d is shared with other options$"):
        await vsmb.add("C:\\d", VirtualSmbShareOptions(read_only=True, take_backup_privilege=True))
    assert (machine.types, vsmb.shares[0].references) == (["Add"], 1)


async def test_what_the_caller_passes_as_options_stays_his() -> None:
    machine = Machine()
    options = VirtualSmbShareOptions(read_only=True)
    share = await Vsmb(machine.owner).add("C:\\d\\f", options)
    assert share.options == structs.replace(options, restrict_file_access=True, single_file_mapping=True)
    assert options == VirtualSmbShareOptions(read_only=True)


@pytest.mark.parametrize(("build", "direct"), [(18361, True), (18362, False), (19042, False), (19043, True)])
async def test_on_builds_that_may_not_map_files_they_are_not_mapped(build: int, *, direct: bool) -> None:
    share = await Vsmb(Machine(build=build).owner).add("C:\\d")
    assert share.options.no_directmap is not direct


async def test_a_clone_has_its_templates_shares_and_goes_on_counting() -> None:
    machine = Machine()
    options = VirtualSmbShareOptions(read_only=True)
    entries = [
        VsmbEntry("s1", "C:\\d", f"{PREFIX}s1", read_only=True, of_files=True, options=options, allowed_files=("C:\\d\\f",)),
    ]
    vsmb = Vsmb(machine.owner, entries)
    assert vsmb.guest_path("C:\\d\\f") == f"{PREFIX}s1\\f"
    assert (await vsmb.add("C:\\d")).name == "s2"
    assert (await vsmb.add("C:\\d\\g")).allowed_files == ("C:\\d\\f", "C:\\d\\g")


async def test_shares_are_for_the_guest_that_knows_them() -> None:
    linux, windows = Machine(windows=False), Machine()
    for call in (Vsmb(linux.owner).add("/d"), Plan9(windows.owner).add("C:\\d", "/mnt")):
        with pytest.raises(Unsupported, match="^not supported$"):
            await call
    assert (linux.asked, windows.asked) == ([], [])


# -- share --------------------------------------------------------------------------------------------------------------


async def test_a_windows_guest_is_told_where_a_folder_is_to_be() -> None:
    machine = Machine()
    vsmb = Vsmb(machine.owner)
    shared = await share(machine.owner, Plan9(machine.owner), vsmb, "C:\\d\\f", "C:\\s", read_only=True)
    assert isinstance(shared, SmbShare)
    assert machine.asked[1]["GuestRequest"] == {
        "RequestType": "Add",
        "ResourceType": "MappedDirectory",
        "Settings": {"HostPath": f"{PREFIX}s1\\f", "ContainerPath": "C:\\s", "ReadOnly": True},
    }


async def test_what_a_windows_guest_refuses_is_shared_no_more() -> None:
    machine = Machine()
    vsmb = Vsmb(machine.owner)
    machine.refuses = lambda asked: GuestError("no", call="ModifySettings", result=1) if "GuestRequest" in asked else None
    with pytest.raises(GuestError, match="^no$"):
        await share(machine.owner, Plan9(machine.owner), vsmb, "C:\\d", "C:\\s", read_only=False)
    assert vsmb.shares == ()


@pytest.mark.parametrize(("path", "settings"), [("/d", {"Path": "/d", "Flags": 5}), ("/d/f", {"Path": "/d/", "AllowedFiles": ["f"]})])
async def test_a_linux_guest_mounts_a_folder_or_a_folder_with_one_file(path: str, settings: dict[str, Any]) -> None:
    async with running() as world:
        world.seen |= {"/d": Seen(folder=True), "/d/f": Seen(folder=False)}
        await world.vm.share(path, "/mnt")
        assert world.requests()[0]["Settings"].items() >= settings.items()
        assert world.asked[1] == "guest Add MappedDirectory"
        with pytest.raises(NotFound, match="^could not open '/none' path on host: /none: no such file or folder$"):
            await world.vm.share("/none", "/mnt")


async def test_a_link_to_a_file_is_the_file_that_it_leads_to() -> None:
    async with running() as world:
        world.seen["/d/link"] = Seen(folder=False, real="/e/f")
        await world.vm.share("/d/link", "/mnt")
        assert world.requests()[0]["Settings"].items() >= {"Path": "/e/", "AllowedFiles": ["f"]}.items()


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (Seen(folder=True, real="/"), "is the whole of this host, which no VM is given"),
        (Seen(folder=False, special=True, real="/p"), "is neither a file nor a folder: nothing else can be shared with a VM"),
    ],
)
async def test_what_cannot_be_shared_is_refused_before_anything_is_asked(seen: Seen, said: str) -> None:
    async with running() as world:
        world.seen["/p"] = seen
        with pytest.raises(Unsupported, match=f"^/p: {said}$"):
            await world.vm.share("/p", "/mnt")
        assert world.asked == []


async def test_each_9p_share_has_a_number_of_its_own_and_is_removed_by_what_was_returned() -> None:
    async with running() as world:
        first, second = [await world.vm.plan9.add("/d", path) for path in ("/a", "/b")]
        assert (first.name, second.name) == ("0", "1")
        await world.vm.plan9.remove(first)
        assert [one.guest_path for one in world.vm.plan9.shares] == ["/b"]
        with pytest.raises(NotFound, match="^not attached$"):
            await world.vm.plan9.remove(first)
        with pytest.raises(InvalidOptions, match="^uvmPath must be passed to AddPlan9$"):
            await world.vm.plan9.add("/d", "")
        assert (await world.vm.plan9.add("/d", "/c")).name == "2"


async def test_a_share_of_named_files_alone_says_so_also_when_there_are_none() -> None:
    async with running() as world:
        await world.vm.plan9.add("/d", "/a", allowed_names=[])
        assert world.requests()[0]["Settings"]["Flags"] == 0x84
    machine = Machine(build=18361, windows=False)
    with pytest.raises(Unsupported, match="^single-file mappings are not supported on this build of Windows$"):
        await Plan9(machine.owner).add("/d", "/a", allowed_names=["f"])


# -- devices of the host, pipes -----------------------------------------------------------------------------------------


async def test_a_device_of_the_host_has_a_place_of_its_own_and_is_given_once() -> None:
    machine = Machine()
    vpci = VPci(machine.owner, {})
    first, again, other = [await vpci.assign(device) for device in ("PCIP\\1", "PCIP\\1", "PCIP\\2")]
    assert (first.vmbus_guid, again.references) == (again.vmbus_guid, 2)
    assert other.vmbus_guid != first.vmbus_guid
    await vpci.remove("PCIP\\1")
    machine.refuses = lambda _: HostError("in use")
    with pytest.raises(HostError, match="^in use$"):
        await vpci.remove("PCIP\\1")
    assert {device.device_id for device in vpci.devices} == {"PCIP\\1", "PCIP\\2"}
    machine.refuses = lambda _: None
    await vpci.remove("PCIP\\1")
    assert machine.asked[-1] == {"ResourcePath": f"VirtualMachine/Devices/VirtualPci/{first.vmbus_guid}", "RequestType": "Remove"}
    with pytest.raises(NotFound, match=r"^no device with ID PCIP\\1 is present on the uvm x$"):
        await vpci.remove("PCIP\\1")


async def test_a_device_that_is_there_from_the_start_is_known_and_can_be_given_back() -> None:
    machine = Machine()
    vpci = VPci(machine.owner, {"g1": "0000:01:00.0"})
    assert [(device.device_id, device.vmbus_guid, device.state) for device in vpci.devices] == [("0000:01:00.0", "g1", "attached")]
    assert (await vpci.assign("0000:01:00.0")).references == 2
    await vpci.remove("0000:01:00.0")
    await vpci.remove("0000:01:00.0")
    assert machine.asked == [{"ResourcePath": "VirtualMachine/Devices/VirtualPci/g1", "RequestType": "Remove"}]
    assert vpci.devices == ()


async def test_pipes_are_the_host_services() -> None:
    machine = Machine()
    pipes = Pipes(machine.owner)
    await pipes.add("\\\\.\\pipe\\docker")
    await pipes.remove("\\\\.\\pipe\\docker")
    assert machine.types == ["Add", "Remove"]
    assert {asked["ResourcePath"] for asked in machine.asked} == {"VirtualMachine/Devices/MappedPipes/\\\\.\\pipe\\docker"}


def test_a_container_finds_a_pipe_of_the_host_by_its_vms_share() -> None:
    assert (is_pipe("\\\\.\\pipe\\a"), is_pipe("C:\\pipe\\a")) == (True, False)
    assert container_pipe("\\\\.\\pipe\\a", "\\\\.\\pipe\\b", in_vm=True) == (f"{PREFIX}IPC$\\a", "b")
    assert container_pipe("\\\\.\\pipe\\a", "b", in_vm=False) == ("\\\\.\\pipe\\a", "b")


# -- numbers and rules --------------------------------------------------------------------------------------------------

TOPOLOGY = "VirtualMachine/ComputeTopology"


@asynccontextmanager
async def quiet() -> AsyncIterator[World]:
    async with running() as world:
        yield world


@pytest.mark.parametrize(("size", "mebibytes"), [(0, 0), (1, 2), (1 << 20, 2), ((2 << 20) + 1, 4), (3 << 20, 4), (2**64 - 1, 1 << 44)])
async def test_memory_is_rounded_up_to_an_even_number_of_mebibytes(size: int, mebibytes: int) -> None:
    async with quiet() as world:
        await world.vm.update_memory(size)
        assert world.requests() == [{"ResourcePath": f"{TOPOLOGY}/Memory/SizeInMB", "Settings": mebibytes}]


async def test_numbers_and_rules_go_to_the_host_as_they_are() -> None:
    async with quiet() as world:
        await world.vm.update_cpu_limits(ProcessorLimits(limit=50_000))
        await world.vm.set_cpu_group("g")
        await world.vm.release_cpu_group()
        await world.vm.update_hvsocket_service("abc", HvSocketServiceConfig(disabled=True))
        await world.vm.remove_hvsocket_service("abc")
        await world.vm.update_nic("n", NetworkAdapter(endpoint_id="e"))
        assert world.requests() == [
            {"ResourcePath": f"{TOPOLOGY}/Processor/Limits", "Settings": {"Limit": 50_000}},
            {"ResourcePath": f"{TOPOLOGY}/Processor/CpuGroup", "Settings": {"Id": "g"}},
            {"ResourcePath": f"{TOPOLOGY}/Processor/CpuGroup", "Settings": {"Id": "00000000-0000-0000-0000-000000000000"}},
            {
                "ResourcePath": "VirtualMachine/Devices/HvSocket/HvSocketConfig/ServiceTable/abc",
                "RequestType": "Update",
                "Settings": {"Disabled": True},
            },
            {"ResourcePath": "VirtualMachine/Devices/HvSocket/HvSocketConfig/ServiceTable/abc", "RequestType": "Remove"},
            {"ResourcePath": "VirtualMachine/Devices/NetworkAdapters/n", "RequestType": "Update", "Settings": {"EndpointId": "e"}},
        ]


async def test_what_makes_no_sense_is_not_sent() -> None:
    async with quiet() as world:
        with pytest.raises(InvalidOptions, match="^must specify an ID to use when configuring a VM's cpugroup$"):
            await world.vm.set_cpu_group("")
        with pytest.raises(InvalidOptions, match="^-1 bytes: a machine's memory is not less than nothing$"):
            await world.vm.update_memory(-1)
        world.host = lambda _: HostError("busy")
        with pytest.raises(HostError, match="^failed to remove VM fake from cpugroup: busy$"):
            await world.vm.release_cpu_group()
        assert len(world.asked) == 1


# -- the guest ----------------------------------------------------------------------------------------------------------


async def test_what_the_guest_is_too_old_for_is_refused_here() -> None:
    async with quiet() as world:
        assert world.vm.capabilities.delete_container_state_supported
        await world.vm.close_gcs_connection()
        assert not world.vm.capabilities.delete_container_state_supported
        with pytest.raises(Unsupported, match="^uvm guest connection does not support deleteContainerState$"):
            await world.vm.delete_container_state("c")
        with pytest.raises(Unsupported, match="^vm fake: no guest connection of its own"):
            await world.vm.update_container("c", {})


async def test_a_container_that_is_not_there_is_the_guests_to_refuse() -> None:
    async with quiet() as world:
        for call in (world.vm.delete_container_state("c"), world.vm.update_container("c", {"cpu": {"shares": 2}})):
            with pytest.raises(GuestError, match="no such container: c"):
                await call
